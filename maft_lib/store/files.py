"""Files of the store: hashes of content, atomic writes, and errors of the disk as sentences."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

NEW = ".new-"  # before the name of what is being written beside its place
SOCIETIES, STUDIES = "societies", "studies"  # folders of records


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
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


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
            os.replace(beside, place)
    finally:
        beside.unlink(missing_ok=True)


def save_record(folder: Path, values: dict) -> Path:
    """Writes plain JSON values into `folder`, named by their hash; what is there already stays."""
    text = json.dumps(values, indent=1) + "\n"
    place = folder / f"{content_key(json.loads(text))}.json"
    with explained(place):
        folder.mkdir(parents=True, exist_ok=True)
        if not place.is_file() or place.read_bytes() != text.encode():
            with replacing(place) as new:
                new.write_text(text, encoding="utf-8")
    return place


def read_records(folder: Path) -> tuple[dict[Path, dict], list[Path]]:
    """The records in `folder` by their files, and the files that are damaged."""
    found: dict[Path, dict] = {}
    files = sorted(path for path in folder.glob("*.json") if path.is_file())
    for path in files:
        with suppress(ValueError):
            values = json.loads(path.read_bytes())
            if content_key(values) == path.stem:
                found[path] = values
    return found, [path for path in files if path not in found]


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of the disk and the database into a `StoreError` that says what to do."""
    try:
        yield
    except Exception as error:
        is_of_disk = isinstance(error, (sqlite3.Error, OSError, SafetensorError))
        if not is_of_disk and "(os error " not in str(error):  # as tokenizers say it
            raise
        raise StoreError(
            f"{path} cannot be used: {error}. Free some space, make the folder writable or name "
            "another one as `runs_dir`; `maft.verify(runs_dir, repair=True)` puts the damaged database "
            "aside."
        ) from error
