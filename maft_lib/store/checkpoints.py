"""Checkpoints of the store: a folder per finetuned model, named by the hash of what it was made from.

They need no database, since nodes of a cluster make them, and SQLite on a shared folder is not safe.
Each is sealed by a manifest of its files' hashes.
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

from maft_lib.store.files import NEW, StoreError, StoreWarning, content_key, explained, file_hash, flush

FOLDER = "checkpoints"
ADAPTER, BASE = "adapter_config.json", "base.json"
MODEL_FILES = (
    *("*.safetensors", "config.json", "generation_config.json", ADAPTER, BASE),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*"),
    *("vocab.*", "merges.txt"),
)
MANIFEST = "manifest.json"
LOG = "training.json"  # what the training of a checkpoint said of itself; no part of the model
DAMAGED = ".damaged-"  # before the name of one that was put aside
UNFINISHED = f"{NEW}{platform.node()}-"  # before that of one which a process of this machine writes


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
    """The identity; raises `StoreError` if a checkpoint's file is not as its manifest says."""
    digest = hashlib.sha256()
    manifest = _manifest(Path(stamp[0][0]).parent) if stamp else {}
    for path in (Path(name) for name, _, _ in stamp):
        content = file_hash(path)
        if manifest and manifest.get(path.name) != content:
            raise StoreError(
                f"checkpoint {path.parent} is damaged ({path.name}): run the study that made it again; "
                "only this agent is then trained anew."
            )
        if path.name == BASE:  # only which model an adapter's base is, not where
            content = content_key(json.loads(path.read_text())["identity"])
        elif path.name == ADAPTER:
            content = content_key({**json.loads(path.read_text()), "base_model_name_or_path": None})
        digest.update(f"{path.name}\x00{content}\x00".encode())
    return digest.hexdigest()


def _manifest(folder: Path) -> dict[str, str]:
    """Hashes of a checkpoint's files; empty for a model that is no checkpoint of a store."""
    path = folder / MANIFEST
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def find_checkpoint(runs: Path, key: str) -> Path | None:
    """The folder of a finished checkpoint, or None; a damaged one is put aside and warned of."""
    folder = runs / FOLDER / key
    if not folder.exists():
        return None
    if (damaged := damaged_file(folder)) is None:
        return folder
    put_aside(folder)
    warnings.warn(
        f"checkpoint {folder} is damaged ({damaged}): it is made anew, and kept as {DAMAGED}{key}.",
        StoreWarning,
        stacklevel=3,
    )
    return None


def damaged_file(folder: Path) -> str | None:
    """A file of a checkpoint that is not as it was written, missing or added; None if all are whole."""
    try:
        manifest = _manifest(folder)
        there = {path.name for path in folder.iterdir() if path.name[0] != "."} - {MANIFEST}
        wrong = there ^ manifest.keys()
        wrong |= {n for n in there & manifest.keys() if file_hash(folder / n) != manifest[n]}
    except (OSError, ValueError, TypeError):
        return MANIFEST
    return min(wrong, default=None) if manifest else MANIFEST


def put_aside(folder: Path) -> None:
    """Renames a damaged checkpoint so that it is not found."""
    aside = folder.with_name(f"{DAMAGED}{folder.name}")
    with explained(folder):
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)


def make_checkpoint(runs: Path, key: str, write: Callable[[Path], None]) -> Path:
    """The folder of checkpoint `key` under `runs`; `write(folder)` fills it if it is not there yet.

    It is written beside its place and renamed into it, so there is never half of one.
    """
    if (finished := find_checkpoint(runs, key)) is not None:
        return finished
    place = runs / FOLDER / key
    with explained(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{os.getpid()}-", dir=place.parent))
    try:
        write(beside)
        with explained(place):
            seal(beside)
            if not place.exists():  # else another process made the same checkpoint meanwhile
                beside.rename(place)
            flush(place.parent)  # else a power cut may undo the name
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def seal(folder: Path) -> None:
    """Writes the manifest of a folder and has the disk take all of it."""
    hashes = {path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.is_file()}
    (folder / MANIFEST).write_text(json.dumps(hashes, indent=1) + "\n")
    for path in (*folder.iterdir(), folder):
        flush(path)


def sweep(runs: Path) -> None:
    """Removes checkpoints that a killed process of this machine left half written."""
    for folder in (runs / FOLDER).glob(f"{UNFINISHED}*"):
        if not is_being_written(folder):
            shutil.rmtree(folder, ignore_errors=True)


def is_being_written(folder: Path) -> bool:
    """Whether a process of this machine is making a checkpoint there."""
    pid = folder.name.removeprefix(UNFINISHED).split("-")[0]
    return folder.name.startswith(UNFINISHED) and pid.isdigit() and psutil.pid_exists(int(pid))
