"""Checkpoints of the store: a folder per finetuned model, named by the hash of what it was made from.

They need no database, since nodes of a cluster make them, and SQLite on a shared folder is not safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

import psutil

from maft_lib.store.files import NEW, StoreError, StoreWarning, content_key, explained, file_hash

FOLDER = "checkpoints"
ADAPTER, BASE = "adapter_config.json", "base.json"
MODEL_FILES = (
    *("*.safetensors", "config.json", "generation_config.json", ADAPTER, BASE, "tokenizer*", "vocab.*"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template*", "merges.txt"),
)
MANIFEST = "manifest.json"  # hashes of a checkpoint's files
LOG = "training.json"  # what the training of a checkpoint said of itself; no part of the model


def model_identity(folder: str | Path) -> str:
    """sha256 over the files that make a model what it is: a model's identity is never its path.

    Raises `StoreError` if a checkpoint is damaged.
    """
    with os.scandir(folder) as entries:
        files = [file for file in entries if any(fnmatch(file.name, kind) for kind in MODEL_FILES)]
    stamp = sorted((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _identity(Path(folder), tuple(stamp))


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
    folder = runs / FOLDER / key
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
    place = runs / FOLDER / key
    with explained(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(f"@{platform.node()}", f"{NEW}{os.getpid()}-", place.parent))
    try:
        write(beside)
        with explained(place):
            seal(beside)
            if not place.exists():  # else another process made the same checkpoint meanwhile
                beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def seal(folder: Path) -> None:
    """Writes the manifest of a folder's files."""
    (folder / MANIFEST).write_text(json.dumps(_hashes(folder), indent=1) + "\n")


def _hashes(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.glob("[!.]*") if path.name != MANIFEST)
    return {path.name: file_hash(path) for path in paths}


def sweep(runs: Path) -> None:
    """Removes checkpoints that a killed process of this machine left half written."""
    for folder in (runs / FOLDER).glob(f"{NEW}*@{platform.node()}"):
        if not psutil.pid_exists(int(folder.name.split("-")[1])):
            shutil.rmtree(folder, ignore_errors=True)
