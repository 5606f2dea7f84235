"""What the store stands on: hashes of content, and the disk's errors as sentences. Knows no entries."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

NEW = ".new-"  # before the name of what is being written beside its place


class StoreError(RuntimeError):
    """The store cannot be read or written; the message says where and what to do."""


class StoreWarning(UserWarning):
    """Something in the store was damaged and is made anew; the message names it."""


def content_key(parts: object) -> str:
    """sha256 of JSON values, the key of a stored entry."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(path: Path) -> int:
    """Bytes of a file, or of all in a folder; what others have taken away meanwhile counts nothing."""
    total = 0
    inside = (os.path.join(place, name) for place, _, names in os.walk(path) for name in names)
    for name in inside if path.is_dir() else [path]:
        with suppress(FileNotFoundError):
            total += os.stat(name).st_size
    return total


def flush(path: Path) -> None:
    """Has the disk take a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that a file's content is wrong, or that the file ends too soon."""
    kind = error.sqlite_errorcode
    wrong = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return kind & 0xFF in wrong or kind == sqlite3.SQLITE_IOERR_SHORT_READ


@contextmanager
def replacing(place: Path) -> Iterator[Path]:
    """Yields a path beside `place` to write to, which at the end is renamed into it.

    Whoever reads meanwhile, or after a kill, finds the old file or the new one; a link is replaced, not
    followed. Raises `StoreError` if the disk refuses.
    """
    beside = place.with_name(f"{NEW}{os.getpid()}-{threading.get_ident()}")
    try:
        with explained(place):
            yield beside
            if place.is_file() and not place.is_symlink():
                shutil.copymode(place, beside)
            os.replace(beside, place)
    finally:
        beside.unlink(missing_ok=True)


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
    except Exception as error:
        if type(error) is not Exception or "(os error " not in str(error):
            raise
        # tokenizers has no class of its own for what the disk refuses
        raise StoreError(f"{path} cannot be used: {error}. {_remedy(str(error))}") from error


def _remedy(reason: str) -> str:
    reason = reason.lower()
    if "full" in reason or "space" in reason or "quota" in reason:
        return "Free some space and run again: what is finished is kept."
    if "lock" in reason:
        return "Another process holds it: wait for that one and run again."
    return "Make the folder writable, or name another one as `runs_dir`, and run again."
