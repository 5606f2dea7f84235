"""Checkpoints of the store: a folder per finetuned model, named by the hash of what it was made from.

They need no database, since nodes of a cluster make them, and SQLite on a shared folder is not safe.
Each is sealed by a manifest of its files' hashes. Knows nothing of training.
"""

from __future__ import annotations

import errno
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

from maft_lib.disk import NEW, StoreError, StoreWarning, content_key, explained, file_hash, flush

FOLDER = "checkpoints"
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
LOG = "training.json"  # what the training of a checkpoint said of itself; no part of the model
DAMAGED = ".damaged-"  # before the name of one that was put aside


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
    sealed = _manifest(Path(stamp[0][0]).parent) if stamp else {}
    for path in (Path(name) for name, _, _ in stamp):
        whole = file_hash(path)
        if sealed and sealed.get(path.name) != whole:
            raise StoreError(
                f"checkpoint {path.parent} is damaged ({path.name}): run the study that made it again; "
                "only this agent is then trained anew."
            )
        digest.update(f"{path.name}\x00{_content_hash(path, whole)}\x00".encode())
    return digest.hexdigest()


def _content_hash(path: Path, whole: str) -> str:
    """A file's hash; of what an adapter says of its base only which it is, not where."""
    if path.name == BASE:
        return content_key(json.loads(path.read_text())["identity"])
    if path.name == ADAPTER:
        return content_key({**json.loads(path.read_text()), "base_model_name_or_path": None})
    return whole


def find_checkpoint(runs: Path, key: str) -> Path | None:
    """The folder of a finished checkpoint, or None; a damaged one is put aside and warned of."""
    folder = runs / FOLDER / key
    if not folder.exists():
        return None
    if (damaged := damaged_file(folder)) is None:
        return folder
    aside = put_aside(folder)
    warnings.warn(
        f"checkpoint {folder} is damaged ({damaged}): it is made anew, and kept as {aside.name}.",
        StoreWarning,
        stacklevel=3,
    )
    return None


def put_aside(folder: Path) -> Path:
    """Renames a damaged checkpoint so that it is not found; returns its new place."""
    aside = folder.with_name(f"{DAMAGED}{folder.name}")
    with explained(folder):
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    return aside


def damaged_file(folder: Path) -> str | None:
    """A file of a checkpoint that is not as it was written, missing or added; None if all are whole."""
    try:
        sealed = _manifest(folder)
        there = {path.name for path in folder.iterdir() if path.name[0] != "."} - {MANIFEST}
        wrong = there ^ sealed.keys()
        wrong |= {name for name in there & sealed.keys() if file_hash(folder / name) != sealed[name]}
    except (OSError, ValueError):
        return MANIFEST
    return min(wrong, default=None) if sealed else MANIFEST


def _manifest(folder: Path) -> dict[str, str]:
    """Hashes of a checkpoint's files; empty for a model that is no checkpoint of a store."""
    path = folder / MANIFEST
    sealed = json.loads(path.read_text()) if path.is_file() else {}
    if not isinstance(sealed, dict) or any(Path(name).name != name for name in sealed):
        raise ValueError(f"{path} is no manifest")
    return sealed


def make_checkpoint(runs: Path, key: str, write: Callable[[Path], None]) -> Path:
    """The folder of checkpoint `key` under `runs`; `write(folder)` fills it if it is not there yet.

    It is written beside its place and renamed into it, so there is never half of one.
    """
    if (finished := find_checkpoint(runs, key)) is not None:
        return finished
    place = runs / FOLDER / key
    with explained(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f"{_unfinished()}{os.getpid()}-", dir=place.parent))
    try:
        write(beside)
        with explained(place):
            _seal(beside)
            _rename(beside, place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def sweep(runs: Path) -> None:
    """Removes checkpoints that a killed process of this machine left half written."""
    for folder in (runs / FOLDER).glob(f"{_unfinished()}*"):
        if not is_being_written(folder):
            shutil.rmtree(folder, ignore_errors=True)


def is_being_written(folder: Path) -> bool:
    """Whether a process of this machine is making a checkpoint there."""
    pid = folder.name.removeprefix(_unfinished()).split("-")[0]
    return folder.name.startswith(_unfinished()) and pid.isdigit() and psutil.pid_exists(int(pid))


def _unfinished() -> str:
    """How the name of a checkpoint begins that a process of this machine is writing."""
    return f"{NEW}{platform.node()}-"


def _seal(folder: Path) -> None:
    """Writes the manifest of a folder and has the disk take all of it."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    manifest = {path.name: file_hash(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    for path in (*folder.iterdir(), folder):
        flush(path)


def _rename(beside: Path, place: Path) -> None:
    try:
        beside.rename(place)
        flush(place.parent)  # else a power cut may undo the name
    except OSError as error:  # another process made the same checkpoint meanwhile
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
