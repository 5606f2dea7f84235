"""The only memory of a study: completions and checkpoints on disk, found by the hash of their content.

`runs/completions.sqlite` holds one row per completion, `runs/checkpoints/` one folder per finetuned
model. A process killed at any moment leaves whole entries or none. Checksums are verified when entries
are read: a damaged entry is named in a `StoreWarning` and not found, so that it alone is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from maft_lib.store.files import CHECKPOINTS, StoreError, StoreWarning, explained, sweep
from maft_lib.store.files import model_identity as model_identity

DATABASE = "completions.sqlite"
FORMAT = 2  # as the database's user_version
# Long rows leave little of a large page empty. Before the table is made, which sets it.
SCHEMA = f"""
PRAGMA page_size=16384; PRAGMA journal_mode=WAL; PRAGMA user_version={FORMAT};
CREATE TABLE completions (key TEXT NOT NULL UNIQUE, value TEXT NOT NULL, checksum TEXT NOT NULL);
"""


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
            self._connection = connect(self.path)
        sweep(self.folder)

    def get(self, keys: Sequence[str]) -> dict[str, dict]:
        """The stored completions among `keys`, as far as they are undamaged."""
        found: dict[str, dict] = {}
        with self._lock, explained(self.path):
            for _, key, value, is_whole in rows(self._connection, keys):
                if is_whole:
                    found[key] = json.loads(value)
                else:
                    message = f"{self.path}: entry {key} was altered on disk and is made anew."
                    warnings.warn(message, StoreWarning, stacklevel=2)
        return found

    def put(self, entries: Iterable[tuple[str, dict]]) -> None:
        """Stores completions in one transaction. Raises `StoreError` where nothing can be written."""
        texts = [(key, json.dumps(value)) for key, value in entries]
        checked = [(key, text, _checksum(key.encode(), text.encode())) for key, text in texts]
        with self._lock, explained(self.path), self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR REPLACE INTO completions VALUES (?, ?, ?)", checked)

    def __len__(self) -> int:
        with explained(self.path):
            return self._connection.execute("SELECT count(*) FROM completions").fetchone()[0]

    def close(self) -> None:
        """Closes the database; every entry is on disk already."""
        self._connection.close()


def connect(path: Path) -> sqlite3.Connection:
    """A connection to the completions, whose database is made if need be; to read where it must not."""
    mode = "rwc"
    if path.is_file() and not os.access(path.parent, os.W_OK):
        # Immutable where SQLite would need to write beside it.
        mode = "ro" if Path(f"{path}-wal").exists() else "ro&immutable=1"
    else:
        (path.parent / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, 60, isolation_level=None, check_same_thread=False, uri=True)
    if mode == "rwc":
        connection.executescript("PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=256")
        with FileLock(f"{path}.lock"):  # SQLite does not wait where two processes turn WAL on at once
            if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                connection.executescript(SCHEMA)
    if (found := connection.execute("PRAGMA user_version").fetchone()[0]) != FORMAT:
        raise StoreError(f"{path} has format {found}, not {FORMAT}: name another folder as `runs_dir`.")
    return connection


def rows(
    connection: sqlite3.Connection, keys: Sequence[str] | None = None
) -> Iterator[tuple[int, str, bytes, bool]]:
    """Number, key and value of the rows with these keys, or of all; and whether they are undamaged."""
    # As bytes, since damaged text need not be UTF-8, nor be there.
    parts = (f"ifnull(CAST({part} AS BLOB), x'')" for part in ("key", "value", "checksum"))
    query = f"SELECT rowid, {', '.join(parts)} FROM completions"
    if keys is not None:
        query += " WHERE key IN (SELECT value FROM json_each(:keys))"
    for number, key, value, checksum in connection.execute(query, {"keys": json.dumps(keys)}):
        yield number, key.decode(errors="replace"), value, checksum == _checksum(key, value).encode()


def _checksum(key: bytes, value: bytes) -> str:
    return hashlib.sha256(key + b"\x00" + value).hexdigest()
