"""Files of the store: checkpoints and records, with their hashes, whole or not there.

A checkpoint is the folder of a finetuned model, a record a JSON file; both are named by hashes. They
need no database, since nodes of a cluster make them, and SQLite on a shared folder is not safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

import psutil
from safetensors import SafetensorError

NEW = ".new-"  # before the name of what is being written beside its place
CHECKPOINTS, SOCIETIES, STUDIES = "checkpoints", "societies", "studies"  # folders
ADAPTER, BASE = "adapter_config.json", "base.json"
MODEL_FILES = (
    *("*.safetensors", "config.json", "generation_config.json", ADAPTER, BASE, "tokenizer*", "vocab.*"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template*", "merges.txt"),
)
MANIFEST = "manifest.json"  # hashes of a checkpoint's files
LOG = "training.json"  # what the training of a checkpoint said of itself; no part of the model


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
            place.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            os.replace(beside, place)
    finally:
        beside.unlink(missing_ok=True)


def save_record(folder: Path, values: dict) -> Path:
    """Writes plain JSON values into `folder`, named by their hash; what is there already stays."""
    text = json.dumps(values, indent=1) + "\n"
    place = folder / f"{content_key(json.loads(text))}.json"
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
            "another `runs_dir`; `maft.verify(runs_dir, repair=True)` puts a damaged database aside."
        ) from error


def model_identity(folder: str | Path) -> str:
    """sha256 over the files that make a model what it is: a model's identity is never its path.

    Raises `StoreError` if a checkpoint is damaged.
    """
    with os.scandir(folder) as entries:
        files = [file for file in entries if _is_of_model(file.name)]
    stamp = sorted((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _identity(Path(folder), tuple(stamp))


@lru_cache(maxsize=1024)
def _is_of_model(name: str) -> bool:
    """Whether a file is part of what a model is; `consolidated.safetensors` has the weights again."""
    return any(fnmatch(name, kind) for kind in MODEL_FILES) and not name.startswith("consolidated")


@lru_cache(maxsize=1024)
def _identity(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    """The identity from files, which are read again when their time or size has changed."""
    manifest = folder / MANIFEST  # a store's checkpoint has one
    hashes = json.loads(manifest.read_bytes()) if manifest.is_file() else {}
    digest = hashlib.sha256()
    for path in (folder / name for name, _, _ in stamp):
        content = file_hash(path)
        if hashes and hashes.get(path.name) != content:
            raise StoreError(f"checkpoint {folder} is damaged ({path.name}): run its study again.")
        if path.name == BASE:  # only which model an adapter's base is, not where
            content = content_key(json.loads(path.read_text())["identity"])
        elif path.name == ADAPTER:
            content = content_key({**json.loads(path.read_text()), "base_model_name_or_path": None})
        digest.update(f"{path.name}\x00{content}\x00".encode())
    return digest.hexdigest()


def find_checkpoint(runs: Path, key: str) -> Path | None:
    """The folder of a finished checkpoint, or None; a damaged one is put aside and warned of."""
    folder = runs / CHECKPOINTS / key
    if not folder.exists():
        return None
    if (damaged := damaged_file(folder)) is None:
        return folder
    aside = folder.with_name(f".damaged-{key}")
    with explained(folder):
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    message = f"checkpoint {folder} is damaged ({damaged}): it is made anew, and kept as {aside.name}."
    warnings.warn(message, StoreWarning, stacklevel=3)
    return None


def damaged_file(folder: Path) -> str | None:
    """A file of a checkpoint that is not as it was written, missing or added; None if all are whole."""
    try:
        wrong = _hashes(folder).items() ^ json.loads((folder / MANIFEST).read_bytes()).items()
    except (OSError, ValueError, AttributeError):
        return MANIFEST
    return min((name for name, _ in wrong), default=None)


def make_checkpoint(runs: Path, key: str, write: Callable[[Path], None]) -> Path:
    """The folder of checkpoint `key` under `runs`; `write(folder)` fills it if it is not there yet.

    It is written beside its place and renamed into it, so there is never half of one.
    """
    if (finished := find_checkpoint(runs, key)) is not None:
        return finished
    place = runs / CHECKPOINTS / key
    with explained(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(f"@{platform.node()}", f"{NEW}{os.getpid()}-", place.parent))
    try:
        write(beside)
        with explained(place):
            (beside / MANIFEST).write_text(json.dumps(_hashes(beside), indent=1) + "\n")
            if not place.exists():  # else another process made the same checkpoint meanwhile
                beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def _hashes(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.glob("[!.]*") if path.name != MANIFEST)
    return {path.name: file_hash(path) for path in paths}


def sweep(runs: Path) -> None:
    """Removes checkpoints that a killed process of this machine left half written."""
    for folder in (runs / CHECKPOINTS).glob(f"{NEW}*@{platform.node()}"):
        if not psutil.pid_exists(int(folder.name.split("-")[1])):
            shutil.rmtree(folder, ignore_errors=True)
