"""Looks through a whole store: what is damaged, and what no society needs any more.

`verify` and `gc` only say what they find unless they are told to act. They know nothing of how that is
made again: a study that is run again does it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from filelock import FileLock

from maft_lib import checkpoints, provenance, records, societies
from maft_lib.arguments import as_path, check_able, check_flag
from maft_lib.backends import openai_jobs
from maft_lib.backends.openai_calls import read_job
from maft_lib.disk import NEW, StoreError, StoreWarning, explained, is_damage, size
from maft_lib.store import (
    DATABASE,
    PAGE_SIZE,
    ROWS,
    copy_database,
    entry_checksum,
    is_current,
    open_database,
)

RECORDS = (societies.FOLDER, provenance.FOLDER)
DAMAGED = f"damaged-{DATABASE}"
SHORTEST = 64  # bytes of an entry: its checksum alone
RANGE = 64  # entries that are read at once of a damaged database
YOUNG = 24 * 3600  # seconds in which a study that runs may not have said whose a checkpoint is


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
    """Reads every completion, checkpoint and record of a store and compares their checksums.

    Records are of societies, studies and fine-tuning jobs. With `repair` what is damaged is taken out,
    checkpoints into a folder beside their place; a study that is run again makes it anew, and finds a
    job on its server. Raises `StoreError` if there is no store or it cannot be read.
    """
    check_flag("repair", repair)
    runs = _store_at(runs_dir)
    database = runs / DATABASE
    with explained(runs):
        keys, complaints, num_completions = _read_completions(database)
        folders = _checkpoints(runs)
        broken = {folder: name for folder in folders if (name := checkpoints.damaged_file(folder))}
        found = [records.read_records(runs / folder) for folder in RECORDS]
        jobs = sorted(path for path in (runs / openai_jobs.FOLDER).glob("*.json") if path.is_file())
        unreadable = [path for _, damaged in found for path in damaged]
        unreadable += [path for path in jobs if read_job(path) is None]
        if repair:
            _repair(database, keys, complaints, [*broken], unreadable)
            num_completions = num_completions if not complaints else _read_completions(database)[2]
    lines = chain(
        (f"{database}: {what}" for what in (*complaints, *keys)),
        (f"{folder}: {name}" for folder, name in broken.items()),
        map(str, unreadable),
    )
    num_records = len(jobs) + sum(len(whole) + len(damaged) for whole, damaged in found)
    return Verification(num_completions, len(folders), num_records, tuple(lines), repair)


def _store_at(runs_dir: str | Path) -> Path:
    runs = as_path("runs_dir", runs_dir)
    if not (runs / DATABASE).is_file():
        raise StoreError(f"{runs} holds no store: give the folder that a study names as `runs_dir`.")
    return runs


def _read_completions(path: Path) -> tuple[list[str], list[str], int]:
    """Keys of altered entries, what SQLite says of its pages, and the number of entries."""
    try:
        with tempfile.TemporaryDirectory(prefix="maft-verify-") as place:
            connection = _opened_to_read(path, Path(place))
            said = [line for (line,) in connection.execute("PRAGMA integrity_check")]
            keys, num_completions = _altered_keys(connection)
            connection.close()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return [], [str(error)], 0
    return keys, [line for line in said if line != "ok"], num_completions


def _opened_to_read(path: Path, place: Path) -> sqlite3.Connection:
    """A connection that changes nothing; of a copy in `place` if it takes changes to read."""
    if os.access(path.parent, os.W_OK):  # as SQLite needs
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=60, uri=True)
        if is_current(connection):
            return connection
        connection.close()
    return open_database(copy_database(path, place))


def _altered_keys(connection: sqlite3.Connection) -> tuple[list[str], int]:
    keys, num_completions = [], 0
    for row in connection.execute(ROWS):
        num_completions += 1
        if not _is_whole(row):
            keys.append(row[0].decode(errors="replace"))
    return keys, num_completions


def _is_whole(row: tuple[bytes, bytes, bytes]) -> bool:
    key, value, checksum = row
    return entry_checksum(key, value).encode() == checksum


def _repair(
    database: Path, keys: list[str], complaints: list[str], folders: list[Path], files: list[Path]
) -> None:
    if complaints:
        rebuild(database)
    elif keys:
        connection = open_database(database)
        connection.executemany("DELETE FROM completions WHERE key = ?", [(key,) for key in keys])
        connection.close()
    for folder in folders:
        checkpoints.put_aside(folder)
    for path in files:
        path.unlink(missing_ok=True)


def rebuild(database: Path) -> None:
    """Builds a damaged database again from all entries that can still be read, and warns of it.

    The damaged one is kept beside it. Of two processes that want the same one does it.
    """
    with (
        FileLock(f"{database}.lock"),
        tempfile.TemporaryDirectory(prefix=NEW, dir=database.parent) as place,
    ):
        if _is_sound(database):
            return
        new = Path(place) / "new.sqlite"
        num = _fill(new, copy_database(database, Path(place)))
        aside = database.with_name(DAMAGED)
        for ending in ("-wal", "-shm", ""):
            if (part := Path(f"{database}{ending}")).exists():
                os.replace(part, f"{aside}{ending}")
        os.replace(new, database)
    warnings.warn(
        f"{database} was damaged: {num:,} entries could be read and are kept, the others are made "
        f"anew; the damaged file is kept as {aside.name}.",
        StoreWarning,
        stacklevel=4,
    )


def _is_sound(database: Path) -> bool:
    if not database.is_file():
        return False
    _, complaints, _ = _read_completions(database)
    return not complaints


def _fill(new: Path, damaged: Path) -> int:
    """Writes what can be read of a damaged database into a new one; returns the number of entries."""
    connection = open_database(new)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    rows = dict.fromkeys(_readable(damaged))
    if not rows:
        _replace_first_page(damaged, new)
        rows = dict.fromkeys(_readable(damaged))
    connection.execute("BEGIN")
    connection.executemany("INSERT OR IGNORE INTO completions VALUES (?, ?, ?)", rows)
    connection.execute("COMMIT")
    connection.close()
    return len(rows)


def _readable(database: Path) -> Iterator[tuple[str, str, str]]:
    """Whole entries, some of them twice: damage hides only what it touches."""
    connection = sqlite3.connect(database)
    for row in chain(_as_they_lie(connection), _by_number(connection, database)):
        if _is_whole(row):
            yield tuple(part.decode() for part in row)
    connection.close()


def _as_they_lie(connection: sqlite3.Connection) -> Iterator[tuple]:
    """Page by page, whatever their numbers; ends at the first page that cannot be read."""
    with suppress(sqlite3.DatabaseError):
        yield from connection.execute(f"{ROWS} NOT INDEXED")


def _by_number(connection: sqlite3.Connection, database: Path) -> Iterator[tuple]:
    """In the order in which they were written; around damage one by one."""
    most = sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*")) // SHORTEST
    for start in range(0, most, RANGE):
        try:
            yield from _rows_between(connection, start, start + RANGE)
        except sqlite3.DatabaseError:
            for number in range(start, start + RANGE):
                with suppress(sqlite3.DatabaseError):
                    yield from _rows_between(connection, number, number + 1)


def _rows_between(connection: sqlite3.Connection, first: int, end: int) -> list[tuple]:
    return connection.execute(f"{ROWS} WHERE rowid >= ? AND rowid < ?", (first, end)).fetchall()


def _replace_first_page(database: Path, fresh: Path) -> None:
    """The first page of any store says the same: which table there is, and that it begins on page 2.

    All but the number of pages, which SQLite takes from the file if two counters differ.
    """
    page = fresh.read_bytes()[:PAGE_SIZE]
    with database.open("r+b") as file:
        file.write(page[:92] + b"\xff" * 4 + page[96:])


@dataclass(frozen=True)
class Freed:
    """What `gc` has removed, or in a dry run would remove: `paths`, and their `num_bytes`."""

    paths: tuple[Path, ...]
    num_bytes: int
    dry_run: bool

    def __str__(self) -> str:
        from maft_lib.lab.records import size_in_words

        what = "would be removed; say dry_run=False to do it" if self.dry_run else "were removed"
        head = f"{len(self.paths)} files and folders, {size_in_words(self.num_bytes)}, {what}"
        return "\n".join([f"{head}{':' if self.paths else '.'}", *map(str, self.paths)])


def gc(runs_dir: str | Path, keep: Callable[[dict], bool] | None = None, dry_run: bool = True) -> Freed:
    """Frees the space of checkpoints of no society that is to be kept, and of what was damaged.

    `keep` is asked with what is known `about` each society of `list_societies` (method, task, seed,
    iteration, accuracy, profile, ...); None keeps all. A checkpoint of no society stays for a day,
    since a study may be running, and as long as a society's file is damaged, whose it may be: run that
    study again. Completions stay: they are small, and dear to make again. Raises `StoreError` if there
    is no store or something cannot be removed.
    """
    check_flag("dry_run", dry_run)
    if keep is not None:
        check_able("keep", keep, "__call__", "a function that takes what is known of a society")
    runs = _store_at(runs_dir)
    paths = tuple(sorted({*_leftovers(runs), *_unneeded(runs, keep)}))
    num_bytes = sum(map(size, paths))
    for path in () if dry_run else paths:
        with explained(path):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return Freed(paths, num_bytes, dry_run)


def _leftovers(runs: Path) -> Iterator[Path]:
    """What was put aside as damaged, and what a process that was killed had begun."""
    yield from runs.glob(f"{DAMAGED}*")
    yield from (runs / checkpoints.FOLDER).glob(f"{checkpoints.DAMAGED}*")
    begun = chain(runs.glob(f"{NEW}*"), runs.glob(f"*/{NEW}*"))
    for path in begun:
        if _age(path) > YOUNG and not checkpoints.is_being_written(path):
            yield path


def _unneeded(runs: Path, keep: Callable[[dict], bool] | None) -> Iterator[Path]:
    saved, damaged = societies.read_societies(runs)
    wanted = {folder for s in saved if keep is None or keep(s.about) for folder in _folders(s)}
    known = {folder for s in saved for folder in _folders(s)}
    for folder in _checkpoints(runs):
        is_nobodys = folder not in known and not damaged and _age(folder) > YOUNG
        if (folder in known and folder not in wanted) or is_nobodys:
            yield folder


def _folders(saved: societies.SavedSociety) -> set[Path]:
    agents = saved.society
    return {Path(a.model) for a in (*agents.generators, *agents.critics, agents.summarizer)}


def _checkpoints(runs: Path) -> list[Path]:
    folder = runs / checkpoints.FOLDER
    return sorted(path for path in folder.glob("[!.]*") if path.is_dir())


def _age(path: Path) -> float:
    """Seconds since it was last changed; none for what is gone by now."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
