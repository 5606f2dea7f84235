"""Where the parts of an exported study lie, and whether all are there. Knows not what they say."""

from __future__ import annotations

import os
import re
from pathlib import Path

from maft_lib.store.files import file_hash

CARD, RESULT, SUMS = "README.md", "result.json", "SHA256SUMS"
CONFIG, PROMPTS, SCORES, COSTS = "config.yml", "prompts.yml", "scores.csv", "costs.csv"
DATASETS, BASE_MODEL = "datasets", "agents/base"
# What belongs to a user and a machine, not to a study: no export says it, and none may decide it.
PLACES = {
    *("profile", "runs_dir", "figures_dir", "data_dir", "notebooks"),
    *("executor", "ray_address", "report_to", "trust_remote_code"),
}


class ExportError(ValueError):
    """A study cannot be exported or loaded back; the message says why and what to do."""


def agent_folder(iteration: int, agent: str) -> str:
    """The checkpoint of an agent after `iteration`, relative to the export.

    Raises `ExportError` for a name that would lead elsewhere, or mean something in a card.
    """
    if not re.fullmatch(r"\w[\w .-]*", agent):
        raise ExportError(f"agent {agent!r}: no folder is called so; use letters, digits, - and _.")
    return f"agents/iteration-{iteration}/{agent}"


def dataset_folder(iteration: int, agent: str) -> str:
    """What an agent learned from in `iteration`, relative to `DATASETS`."""
    return f"iteration-{iteration}/{agent}"


def debates_file(iteration: int, split: str) -> str:
    """The debates on the `eval` or `train` problems, relative to the export."""
    return f"debates/iteration-{iteration}/{split}.jsonl"


def inside(folder: Path, name: str) -> Path:
    """The path of a part. Raises `ExportError` for one that `..` or a link leads out of the export."""
    path = folder / name
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a ring, characters that no path has
        is_inside = False
    if not is_inside:
        raise ExportError(
            f"{folder} names {name!r}, which lies outside of it: ask whoever made it, or, if you made "
            "those links, copy it with the files behind them (cp -rL)."
        )
    return path


def write_sums(folder: Path) -> None:
    """Writes the hash of every file, as `sha256sum -c SHA256SUMS` reads them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_hash(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check(folder: Path) -> None:
    """Raises `ExportError` if `folder` is no whole export, or if anything leads out of it.

    Weights are looked for but not read: `sha256sum` does that, and safetensors notices a short file.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ExportError(
            f"{folder} is no finished export, it has no {SUMS}: give a folder that maft.export wrote."
        ) from None
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name, digest in ({RESULT: ""} | sums).items():  # sums that were cut short name no result
        path = inside(folder, name)
        if not os.path.isfile(path) or (path.suffix != ".safetensors" and file_hash(path) != digest):
            state = "altered" if os.path.isfile(path) else "missing"
            raise ExportError(
                f"{folder} is damaged, {name!s:.200} is {state}: copy or export it again."
            )
    for path in folder.rglob("*"):  # also what no sum is known of
        inside(folder, path.relative_to(folder).as_posix())
