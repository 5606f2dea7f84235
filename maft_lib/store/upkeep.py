"""Looks through a whole store: `verify` names what is damaged, `gc` frees what no society needs."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd

from maft_lib.store import DATABASE, connect, files, rows


def verify(runs_dir: str | Path, repair: bool = False) -> pd.DataFrame:
    """What is damaged in a store, a row each with its `path` and `what`; no row if all is whole.

    Reads every completion, checkpoint and record of a society or study, and compares their checksums.
    With `repair` damaged entries and records are deleted; damaged checkpoints, and a database that
    SQLite cannot read, are renamed. A study that is run again makes them anew. Raises `StoreError` if
    there is no store.
    """
    runs = Path(runs_dir)
    with files.explained(runs / DATABASE):
        damaged = [(runs / DATABASE, what) for what in _verify_completions(runs / DATABASE, repair)]
        for folder in sorted((runs / files.CHECKPOINTS).glob("[!.]*")):
            if folder.is_dir() and (name := files.damaged_file(folder)):
                damaged.append((folder, name))
                if repair:
                    files.find_checkpoint(runs, folder.name)
        records = [files.read_records(runs / name)[1] for name in (files.SOCIETIES, files.STUDIES)]
        for path in sum(records, []):
            damaged.append((path, "its content"))
            if repair:
                path.unlink(missing_ok=True)
    return pd.DataFrame(damaged, columns=["path", "what"])


def _verify_completions(path: Path, repair: bool) -> list[str]:
    """Keys of damaged entries, and what SQLite says of the database."""
    path.stat()  # or a new one would be made
    damaged: dict[int, str] = {}
    try:
        with closing(connect(path)) as connection:
            if repair:
                connection.execute("REINDEX")
            damaged = {number: key for number, key, _, is_whole in rows(connection) if not is_whole}
            if repair:
                delete = "DELETE FROM completions WHERE rowid = ?"
                connection.executemany(delete, [(number,) for number in damaged])
            said = [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    except sqlite3.DatabaseError as error:
        cut = error.sqlite_errorcode == sqlite3.SQLITE_IOERR_SHORT_READ  # the file ends too soon
        if isinstance(error, sqlite3.OperationalError) and not cut:  # the disk's, not the database's
            raise
        said = [str(error)]
    if repair and said:
        for part in path.parent.glob(f"{DATABASE}*"):
            part.replace(path.with_name(f"damaged-{part.name}"))
    return [*said, *damaged.values()]


def gc(
    runs_dir: str | Path, keep: Callable[[dict], bool] | None = None, dry_run: bool = True
) -> pd.DataFrame:
    """Removes what no society needs that is to be kept, and what was damaged or left half written.

    Returns their `path` and `num_bytes`; with `dry_run` nothing is removed yet. `keep` is asked with
    what is known `about` each of `list_societies`; None keeps all. What is younger than a week stays,
    since a study may be running, and so do all checkpoints while a society's file is damaged.
    Completions stay: they are small, and dear to make again.
    """
    runs = Path(runs_dir)
    records, damaged = files.read_records(runs / files.SOCIETIES)
    freed = {*runs.glob("damaged-*"), *runs.glob(f"*/{files.NEW}*")}
    if not damaged:
        freed |= {path for path in (runs / files.CHECKPOINTS).glob("*") if not path.is_symlink()}
    for values in records.values():
        if keep is None or keep(values["about"]):
            society = values["society"]
            agents = (*society["generators"], *society["critics"], society["summarizer"])
            freed -= {runs / agent["model"] for agent in agents}
    old = time.time() - 7 * 24 * 3600
    paths = sorted(path for path in freed if path.stat().st_mtime < old)
    found = pd.DataFrame({"path": paths, "num_bytes": list(map(files.size, paths))})
    for path in [] if dry_run else paths:
        with files.explained(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found
