"""Looks through a whole store: `verify` names what is damaged, `gc` frees what no society needs.

Both only say what they find unless they are asked to act. A study that is run again makes anew what was
taken out.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from maft_lib.store import DATABASE, checkpoints, open_database, rows
from maft_lib.store.files import NEW, SOCIETIES, STUDIES, StoreError, explained, read_records, size

DAMAGED = f"damaged-{DATABASE}"
YOUNG = 24 * 3600  # seconds in which a running study may not have said yet whose a checkpoint is


@dataclass(frozen=True)
class Verification:
    """How much `verify` read, and what it found `damaged`: a line each, the place first."""

    num_completions: int
    num_checkpoints: int
    num_records: int
    damaged: tuple[str, ...]
    repaired: bool

    def __str__(self) -> str:
        looked = (
            f"{self.num_completions:,} completions, {self.num_checkpoints:,} checkpoints and "
            f"{self.num_records:,} records"
        )
        if not self.damaged:
            return f"{looked}: all whole."
        done = "taken out, to be made anew by a study that is run again" if self.repaired else "damaged"
        return "\n".join([f"{looked}: {len(self.damaged)} {done}:", *self.damaged])


def verify(runs_dir: str | Path, repair: bool = False) -> Verification:
    """Reads every completion, checkpoint and record (of a society or study); compares their checksums.

    With `repair` damaged entries and records are deleted, and damaged checkpoints, or the database
    where SQLite cannot read it, are renamed. Raises `StoreError` if there is no store there.
    """
    runs = _store_at(runs_dir)
    with explained(runs):
        num_completions, lines = _verify_completions(runs / DATABASE, repair)
        folders = _checkpoints(runs)
        for folder in folders:
            if name := checkpoints.damaged_file(folder):
                lines.append(f"{folder}: {name}")
                if repair:
                    checkpoints.put_aside(folder)
        num_records = 0
        for kind in (SOCIETIES, STUDIES):
            whole, damaged = read_records(runs / kind)
            num_records += len(whole) + len(damaged)
            for path in damaged:
                lines.append(str(path))
                if repair:
                    path.unlink(missing_ok=True)
    return Verification(num_completions, len(folders), num_records, tuple(lines), repair)


def _verify_completions(path: Path, repair: bool) -> tuple[int, list[str]]:
    """The number of entries, and a line for each that is damaged, or for the database as a whole."""
    found, damaged, said = [], {}, []
    try:
        with closing(open_database(path, repair)) as connection:
            found = [(number, key, is_whole) for number, key, _, is_whole in rows(connection)]
            damaged = {number: key for number, key, is_whole in found if not is_whole}
            if repair:
                command = "DELETE FROM completions WHERE rowid = ?"
                connection.executemany(command, [(number,) for number in damaged])
                connection.execute("REINDEX")
            said = [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # the disk's, not the database's
            raise
        said = [str(error)]
    if repair and said:
        for ending in ("-wal", "-shm", ""):
            if (part := Path(f"{path}{ending}")).exists():
                part.replace(path.with_name(f"{DAMAGED}{ending}"))
    return len(found), [f"{path}: {what}" for what in (*said, *damaged.values())]


def _store_at(runs_dir: str | Path) -> Path:
    if not (Path(runs_dir) / DATABASE).is_file():
        raise StoreError(f"{runs_dir} holds no store: give the folder that a study has as `runs_dir`.")
    return Path(runs_dir)


def _checkpoints(runs: Path) -> list[Path]:
    return sorted(path for path in (runs / checkpoints.FOLDER).glob("[!.]*") if path.is_dir())


@dataclass(frozen=True)
class Freed:
    """What `gc` has removed, or in a dry run would remove: `paths`, and their `num_bytes`."""

    paths: tuple[Path, ...]
    num_bytes: int
    dry_run: bool

    def __str__(self) -> str:
        what = "would be removed; say dry_run=False to do it" if self.dry_run else "were removed"
        head = f"{len(self.paths)} files and folders, {self.num_bytes / 1e6:,.1f} MB, {what}"
        return "\n".join([f"{head}{':' if self.paths else '.'}", *map(str, self.paths)])


def gc(runs_dir: str | Path, keep: Callable[[dict], bool] | None = None, dry_run: bool = True) -> Freed:
    """Frees the space of checkpoints of no society that is to be kept, and of what was damaged.

    `keep` is asked with what is known `about` each society of `list_societies` (method, task, seed,
    iteration, accuracy, profile, ...); None keeps all. A checkpoint of no society stays for a day,
    since a study may be running, and as long as a society's file is damaged, whose it may be: run that
    study again. Completions stay: they are small, and dear to make again. Raises `StoreError` if there
    is no store or something cannot be removed.
    """
    runs = _store_at(runs_dir)
    records, damaged = read_records(runs / SOCIETIES)
    known, wanted = set(), set()
    for values in records.values():
        society = values["society"]
        agents = (*society["generators"], *society["critics"], society["summarizer"])
        folders = {runs / agent["model"] for agent in agents}
        known |= folders
        wanted |= folders if keep is None or keep(values["about"]) else set()
    freed = [*runs.glob(f"{DAMAGED}*"), *(runs / checkpoints.FOLDER).glob(f"{checkpoints.DAMAGED}*")]
    for path in (*runs.glob(f"{NEW}*"), *runs.glob(f"*/{NEW}*")):  # what a killed process had begun
        if _is_old(path) and not checkpoints.is_being_written(path):
            freed.append(path)
    for folder in _checkpoints(runs):
        is_nobodys = folder not in known and not damaged and _is_old(folder)
        if is_nobodys or folder in known - wanted:
            freed.append(folder)
    found = Freed(tuple(sorted(freed)), sum(map(size, freed)), dry_run)
    for path in () if dry_run else found.paths:
        with explained(path):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return found


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > YOUNG
    except FileNotFoundError:
        return False
