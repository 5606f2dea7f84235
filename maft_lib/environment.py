"""What a result was made with: versions and hardware, for set-up cells, checkpoints and records."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from maft_lib.workers import may_have_gpu

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "pandas", "papermill")


def describe_environment() -> pd.DataFrame:
    """Package versions, Python, processor and GPU, one row each."""
    return pd.DataFrame({"": made_with()})


@cache
def made_with() -> dict[str, str]:
    """The same as plain text by name; with the commit where the library is a git checkout."""
    import maft_lib

    rows = {"maft_lib": maft_lib.__version__, "python": platform.python_version()}
    if commit := _commit():
        rows["commit"] = commit
    rows |= {name: version(name) for name in PACKAGES if find_spec(name)}
    rows |= {"processor": f"{platform.machine()}, {os.cpu_count()} cores"}
    rows["GPU"] = ", ".join(_gpus()) or "none"
    return rows


def _commit() -> str:
    """The commit that is checked out, "-dirty" behind it where files were changed; empty if unknown."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if (root / ".git").exists() else ""


def _gpus() -> list[str]:
    if not may_have_gpu():
        return []
    import torch  # takes seconds, so only where there is something to ask

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
