"""The only memory of a study: completions and checkpoints on disk, found by the hash of their content.

`runs/completions.sqlite` holds one row per completion, `runs/checkpoints/` one folder per finetuned
model. Both are written so that a process killed at any moment leaves whole entries or none, and carry
checksums that are verified when they are read: what the disk has damaged is named in a `StoreWarning`
and not found, so that it alone is made anew. Knows what is kept, not what it means.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from maft_lib import checkpoints
from maft_lib.disk import StoreError, StoreWarning, content_key, explained, is_damage

T = TypeVar("T")
DATABASE = "completions.sqlite"
# Of the database, as its user_version: 0 had checksums of the values alone, 1 kept rows in the order of
# their keys, which costs a page of its own for each that is longer than 1,000 bytes.
FORMAT = 2
PAGE_SIZE = 16384  # bytes: long rows leave little of a page empty
TABLE = "completions (key TEXT NOT NULL UNIQUE, value TEXT NOT NULL, checksum TEXT NOT NULL)"
# As bytes, since damaged text need not be UTF-8, nor be there.
PARTS = ", ".join(f"ifnull(CAST({part} AS BLOB), x'')" for part in ("key", "value", "checksum"))
ROWS = f"SELECT {PARTS} FROM completions"


class Store:
    """Completions and checkpoints under one folder. Processes and threads may share it.

    In a folder that cannot be written what is there is read, and `put` raises `StoreError`. So does
    opening a store of a newer version; one of an older version is brought up to date.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.path = self.folder / DATABASE
        self._lock = threading.RLock()  # a transaction belongs to one thread
        self._copy: tempfile.TemporaryDirectory | None = None
        with explained(self.path):
            if not (self.path.is_file() and not os.access(self.folder, os.W_OK)):
                (self.folder / checkpoints.FOLDER).mkdir(parents=True, exist_ok=True)
            else:  # SQLite reads a database only where it can write beside it
                self._copy = tempfile.TemporaryDirectory(prefix="maft-store-")
                copy_database(self.path, Path(self._copy.name))
            self._place, self._opened = self.path, _identity(self.path)
            self._rescued(self._open)
            checkpoints.sweep(self.folder)

    def _open(self) -> None:
        self._place = Path(self._copy.name) / self.path.name if self._copy else self.path
        self._connection = open_database(self._place)
        self._opened = _identity(self._place)

    def _rescued(self, action: Callable[[], T]) -> T:
        """The action's result; if the database is damaged, once it is built again."""
        try:
            if _identity(self._place) != self._opened:  # another process has built it again
                self._open()
            return action()
        except sqlite3.DatabaseError as error:
            if not is_damage(error) or self._copy:
                raise
        from maft_lib.integrity import rebuild  # which knows this module

        rebuild(self.path)
        self._open()
        return action()

    def get(self, keys: Sequence[str]) -> dict[str, dict]:
        """The stored completions among `keys`, as far as they are undamaged."""
        with self._lock, explained(self.path):
            return self._rescued(lambda: self._get(keys))

    def _get(self, keys: Sequence[str]) -> dict[str, dict]:
        found: dict[str, dict] = {}
        damaged: dict[int, str] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            query = f"SELECT {PARTS}, rowid FROM completions WHERE key IN ({','.join('?' * len(part))})"
            for key, value, checksum, number in self._connection.execute(query, part):
                if checksum.decode(errors="replace") == entry_checksum(key, value):
                    found[key.decode()] = json.loads(value)
                else:
                    damaged[number] = key.decode(errors="replace")
        if damaged:
            self._drop(damaged)
        return found

    def _drop(self, damaged: dict[int, str]) -> None:
        """Takes out rows by their numbers, since a damaged key finds no row."""
        one = next(iter(damaged.values()))
        warnings.warn(
            f"{self.path}: {len(damaged)} entries were altered on disk and are made anew, {one} for "
            "one.",
            StoreWarning,
            stacklevel=5,
        )
        self._connection.executemany(
            "DELETE FROM completions WHERE rowid = ?", [(number,) for number in damaged]
        )

    def put(self, entries: Iterable[tuple[str, dict]]) -> None:
        """Stores completions in one transaction. Raises `StoreError` where nothing can be written."""
        rows = [(key, json.dumps(value, ensure_ascii=True)) for key, value in entries]
        checked = [(key, value, entry_checksum(key.encode(), value.encode())) for key, value in rows]
        with self._lock, explained(self.path):
            if self._copy:
                raise sqlite3.OperationalError("attempt to write a readonly database")
            self._rescued(lambda: self._put(checked))

    def _put(self, rows: Sequence[tuple[str, str, str]]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR IGNORE INTO completions VALUES (?, ?, ?)", rows)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk has ended it already
                self._connection.execute("ROLLBACK")
            raise

    def __len__(self) -> int:
        with explained(self.path):
            return self._connection.execute("SELECT count(*) FROM completions").fetchone()[0]

    def close(self) -> None:
        """Closes the database; every entry is on disk already."""
        self._connection.close()
        if self._copy:
            self._copy.cleanup()

    def checkpoint(self, key: str) -> Path | None:
        """`checkpoints.find_checkpoint` in this store."""
        return checkpoints.find_checkpoint(self.folder, key)

    def make_checkpoint(self, key: str, write: Callable[[Path], None]) -> Path:
        """`checkpoints.make_checkpoint` in this store."""
        return checkpoints.make_checkpoint(self.folder, key, write)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file this is, whatever it holds; None if there is none."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino


def entry_checksum(key: bytes, value: bytes) -> str:
    """sha256 of a row, as it is kept in it."""
    return hashlib.sha256(key + b"\x00" + value).hexdigest()


def open_database(path: Path) -> sqlite3.Connection:
    """A connection to the completions, made or brought to this version's format if need be."""
    connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA page_size={PAGE_SIZE}")  # of a new database
    _enter_wal(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint=256")
    if (found := _format(connection)) > FORMAT:
        connection.close()
        raise StoreError(
            f"{path} was written by a newer version of maft_lib (format {found}, this one reads "
            f"{FORMAT}): update maft_lib, or name another folder as `runs_dir`."
        )
    if found < FORMAT:
        _bring_up_to_date(connection)
    return connection


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether a database is of this version's format."""
    return _format(connection) == FORMAT


def _format(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    """From an older format, or from nothing."""
    connection.execute("BEGIN IMMEDIATE")
    found = _format(connection)
    is_new = not connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    if found < FORMAT:  # else another process was faster
        if found == 0 and not is_new:
            _sum_up_keys(connection)
        if not is_new:
            connection.execute("ALTER TABLE completions RENAME TO older")
        connection.execute(f"CREATE TABLE {TABLE}")
        if not is_new:
            connection.execute("INSERT INTO completions SELECT key, value, checksum FROM older")
            connection.execute("DROP TABLE older")
        connection.execute(f"PRAGMA user_version={FORMAT}")
    connection.execute("COMMIT")
    if not is_new:
        connection.execute("VACUUM")


def _sum_up_keys(connection: sqlite3.Connection) -> None:
    """Checksums of format 0 become those of format 1; where the old one is wrong it is kept."""
    rows = [
        (entry_checksum(key, value), key.decode())
        for key, value, checksum in connection.execute(ROWS).fetchall()
        if checksum.decode(errors="replace") == content_key(value.decode(errors="replace"))
    ]
    connection.executemany("UPDATE completions SET checksum = ? WHERE key = ?", rows)


def copy_database(path: Path, folder: Path) -> Path:
    """Copies a database and what is not in its main file yet."""
    for source in (path, path.with_name(f"{path.name}-wal")):
        if source.is_file():
            shutil.copy(source, folder)
    return folder / path.name


def _enter_wal(connection: sqlite3.Connection, patience: float = 60) -> None:
    """Turns write-ahead logging on. SQLite's own timeout does not hold for this first switch, so a
    process that opens a new store at the same moment as another waits here."""
    give_up = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.02)
