"""The only memory of a study: completions and checkpoints on disk, found by the hash of their content.

`runs/completions.sqlite` holds one row per completion, `runs/checkpoints/` one folder per finetuned
model. Both are written so that a process killed at any moment leaves whole entries or none. Knows
what is kept, not what it means.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

import psutil
from safetensors import SafetensorError

ADAPTER, BASE = "adapter_config.json", "base.json"
MODEL_FILES = (
    "*.safetensors",
    ADAPTER,
    BASE,
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
)
MANIFEST = "manifest.json"


class StoreError(RuntimeError):
    """The store cannot be read or written; the message says where and what to do."""


def content_key(parts: object) -> str:
    """sha256 of JSON values, the key of a stored entry."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def model_identity(folder: str | Path) -> str:
    """sha256 over the files that make a model what it is: a model's identity is never its path."""
    found = os.fspath(folder)  # every request asks for its model's, so without the cost of Path
    names = _model_names(found, os.stat(found).st_mtime_ns)
    stats = ((f"{found}/{name}", os.stat(f"{found}/{name}")) for name in names)
    return _hash_files(tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats))


@lru_cache(maxsize=1024)
def _model_names(folder: str, changed: int) -> list[str]:
    """Names of a model's files, listed again when the folder has changed."""
    names = [n for n in os.listdir(folder) if any(fnmatch(n, pattern) for pattern in MODEL_FILES)]
    return sorted(names)


@lru_cache(maxsize=1024)
def _hash_files(stamp: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in stamp:
        digest.update(f"{Path(name).name}\x00{_content_hash(Path(name))}\x00".encode())
    return digest.hexdigest()


def _content_hash(path: Path) -> str:
    """A file's hash; of what an adapter says of its base only which it is, not where."""
    if path.name == BASE:
        return content_key(json.loads(path.read_text())["identity"])
    if path.name == ADAPTER:
        return content_key({**json.loads(path.read_text()), "base_model_name_or_path": None})
    return file_hash(path)


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Store:
    """Completions and checkpoints under one folder. Processes and threads may share it."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.path = self.folder / "completions.sqlite"
        with explained(self.path):
            (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            self._open()
            self._sweep()

    def _open(self) -> None:
        self._connection = sqlite3.connect(
            self.path, timeout=60, isolation_level=None, check_same_thread=False
        )
        self._lock = threading.Lock()  # a transaction belongs to one thread
        _enter_wal(self._connection)
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS completions "
            "(key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID"
        )

    def _sweep(self) -> None:
        """Removes checkpoints that a killed process of this machine left half written."""
        for folder in (self.folder / "checkpoints").glob(f".new-{platform.node()}-*"):
            pid = folder.name.rsplit("-", 2)[1]
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)

    def get(self, keys: Sequence[str]) -> dict[str, dict]:
        """The stored completions among `keys`. Raises `StoreError` if one was altered on disk."""
        found: dict[str, dict] = {}
        with self._lock, explained(self.path):
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, value, checksum FROM completions WHERE key IN ({marks})"
                for key, value, checksum in self._connection.execute(query, part):
                    if checksum != content_key(value):
                        raise sqlite3.DatabaseError(f"the entry {key} was altered")
                    found[key] = json.loads(value)
        return found

    def put(self, entries: Iterable[tuple[str, dict]]) -> None:
        """Stores completions in one transaction."""
        rows = [(key, json.dumps(value, ensure_ascii=True)) for key, value in entries]
        with self._lock, explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    "INSERT OR IGNORE INTO completions VALUES (?, ?, ?)",
                    [(key, value, content_key(value)) for key, value in rows],
                )
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

    def checkpoint(self, key: str) -> Path | None:
        """`find_checkpoint` in this store."""
        return find_checkpoint(self.folder, key)

    def make_checkpoint(self, key: str, write: Callable[[Path], None]) -> Path:
        """`make_checkpoint` in this store."""
        return make_checkpoint(self.folder, key, write)

    def _repr_html_(self) -> str:
        from maft_lib.display.records import store_html  # which knows this module

        return store_html(self)


# Checkpoints need no database: nodes of a cluster make them, and SQLite on a shared folder is not safe.


def find_checkpoint(runs: Path, key: str) -> Path | None:
    """The folder of a finished checkpoint, or None. Raises `StoreError` if it is damaged."""
    folder = runs / "checkpoints" / key
    if not folder.exists():
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        damaged = [n for n, digest in manifest.items() if file_hash(folder / n) != digest]
    except (OSError, ValueError):
        damaged = [MANIFEST]
    if damaged:
        raise StoreError(
            f"checkpoint {folder} is damaged ({damaged[0]}): delete that folder and run again; "
            "only this agent is then trained anew."
        )
    return folder


def make_checkpoint(runs: Path, key: str, write: Callable[[Path], None]) -> Path:
    """The folder of checkpoint `key` under `runs`; `write(folder)` fills it if it is not there yet.

    It is written beside its place and renamed into it, so there is never half of one.
    """
    if (finished := find_checkpoint(runs, key)) is not None:
        return finished
    place = runs / "checkpoints" / key
    with explained(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".new-{platform.node()}-{os.getpid()}-"
        beside = Path(tempfile.mkdtemp(prefix=prefix, dir=place.parent))
    try:
        write(beside)
        with explained(place):
            _seal(beside)
            _rename(beside, place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


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


def _seal(folder: Path) -> None:
    """Writes the manifest of a folder and has the disk take all of it."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    manifest = {path.name: file_hash(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    for path in folder.iterdir():
        _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _rename(beside: Path, place: Path) -> None:
    try:
        beside.rename(place)
    except OSError as error:  # another process made the same checkpoint meanwhile
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


@contextmanager
def explained(path: Path):
    """Turns errors of the disk and the database into one sentence that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be used: {error}. {_remedy(str(error))}") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"{path} is damaged ({error}): move it away, restart the kernel and run again; checkpoints "
            "are kept and only completions are made anew."
        ) from error
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(f"{path} cannot be used: {reason}. {_remedy(reason)}") from error


def _remedy(reason: str) -> str:
    reason = reason.lower()
    if "full" in reason or "space" in reason or "quota" in reason:
        return "Free some space and run again: what is finished is kept."
    if "lock" in reason:
        return "Another process holds it: wait for that one and run again."
    return "Make the folder writable, or name another one as `runs_dir`, and run again."
