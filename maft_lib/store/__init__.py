"""The only memory of a study: completions and checkpoints on disk, found by the hash of their content.

`runs/completions.sqlite` holds one row per completion, `runs/checkpoints/` one folder per finetuned
model. Both are written so that a process killed at any moment leaves whole entries or none, and carry
checksums that are verified when they are read: what the disk has damaged is named in a `StoreWarning`
and not found, so that it alone is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from maft_lib.store import checkpoints
from maft_lib.store.checkpoints import model_identity as model_identity
from maft_lib.store.files import StoreError, StoreWarning, explained

DATABASE = "completions.sqlite"
FORMAT = 2  # as the database's user_version
PAGE_SIZE = 16384  # bytes: long rows leave little of a page empty
TABLE = "completions (key TEXT NOT NULL UNIQUE, value TEXT NOT NULL, checksum TEXT NOT NULL)"
# As bytes, since damaged text need not be UTF-8, nor be there.
PARTS = ", ".join(f"ifnull(CAST({part} AS BLOB), x'')" for part in ("key", "value", "checksum"))


class Store:
    """Completions and checkpoints under one folder. Processes and threads may share it.

    In a folder that cannot be written what is there is read, and `put` raises `StoreError`. So does
    opening a database that is damaged or of another version's format.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.path = self.folder / DATABASE
        self._lock = threading.RLock()  # a transaction belongs to one thread
        with explained(self.path):
            self._is_writable = not self.path.is_file() or os.access(self.folder, os.W_OK)
            if self._is_writable:
                (self.folder / checkpoints.FOLDER).mkdir(parents=True, exist_ok=True)
            self._connection = open_database(self.path, self._is_writable)
        checkpoints.sweep(self.folder)

    def get(self, keys: Sequence[str]) -> dict[str, dict]:
        """The stored completions among `keys`, as far as they are undamaged."""
        found: dict[str, dict] = {}
        damaged: dict[int, str] = {}
        with self._lock, explained(self.path):
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                condition = f"WHERE key IN ({','.join('?' * len(part))})"
                for number, key, value, is_whole in rows(self._connection, condition, part):
                    if is_whole:
                        found[key] = json.loads(value)
                    else:
                        damaged[number] = key
            if damaged:
                warnings.warn(
                    f"{self.path}: {len(damaged)} entries were altered on disk and are made anew, "
                    f"{next(iter(damaged.values()))} for one.",
                    StoreWarning,
                    stacklevel=2,
                )
                if self._is_writable:
                    self.drop(damaged)
        return found

    def drop(self, numbers: Iterable[int]) -> None:
        """Takes out rows by their numbers, since a damaged key finds no row."""
        command = "DELETE FROM completions WHERE rowid = ?"
        self._connection.executemany(command, [(number,) for number in numbers])

    def put(self, entries: Iterable[tuple[str, dict]]) -> None:
        """Stores completions in one transaction. Raises `StoreError` where nothing can be written."""
        texts = [(key, json.dumps(value, ensure_ascii=True)) for key, value in entries]
        checked = [(key, text, _checksum(key.encode(), text.encode())) for key, text in texts]
        with self._lock, explained(self.path), self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR IGNORE INTO completions VALUES (?, ?, ?)", checked)

    def __len__(self) -> int:
        with explained(self.path):
            return self._connection.execute("SELECT count(*) FROM completions").fetchone()[0]

    def close(self) -> None:
        """Closes the database; every entry is on disk already."""
        self._connection.close()

    def checkpoint(self, key: str) -> Path | None:
        """`checkpoints.find_checkpoint` in this store."""
        return checkpoints.find_checkpoint(self.folder, key)

    def make_checkpoint(self, key: str, write: Callable[[Path], None]) -> Path:
        """`checkpoints.make_checkpoint` in this store."""
        return checkpoints.make_checkpoint(self.folder, key, write)


def rows(
    connection: sqlite3.Connection, condition: str = "", values: Sequence[str] = ()
) -> Iterator[tuple[int, str, bytes, bool]]:
    """Number, key and value of each row, and whether its checksum says that it is as it was written."""
    for number, key, value, checksum in connection.execute(
        f"SELECT rowid, {PARTS} FROM completions {condition}", values
    ):
        is_whole = checksum == _checksum(key, value).encode()
        yield number, key.decode(errors="replace"), value, is_whole


def _checksum(key: bytes, value: bytes) -> str:
    return hashlib.sha256(key + b"\x00" + value).hexdigest()


def open_database(path: Path, is_writable: bool) -> sqlite3.Connection:
    """A connection to the completions, made if need be."""
    mode = "rwc" if is_writable else "ro" if Path(f"{path}-wal").exists() else "ro&immutable=1"
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        uri, timeout=60, isolation_level=None, check_same_thread=False, uri=True
    )
    if is_writable:
        connection.execute(f"PRAGMA page_size={PAGE_SIZE}")  # of a new database
        _enter_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint=256")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                connection.execute(f"CREATE TABLE {TABLE}")
                connection.execute(f"PRAGMA user_version={FORMAT}")
    if (found := connection.execute("PRAGMA user_version").fetchone()[0]) != FORMAT:
        connection.close()
        raise StoreError(
            f"{path} is of another version of maft_lib (format {found}, this one reads {FORMAT}): use "
            "that version, or name another folder as `runs_dir`."
        )
    return connection


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Turns write-ahead logging on. SQLite's own timeout does not hold for this first switch, so a
    process that opens a new store at the same moment as another waits here."""
    give_up = time.monotonic() + 60
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.02)
