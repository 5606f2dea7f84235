"""What a result was made with: versions and hardware."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from maft_lib import __version__
from maft_lib.workers import may_have_gpu

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "pandas", "papermill")


def describe_environment() -> pd.DataFrame:
    """Package versions, Python, processor and GPU, one row each."""
    return pd.DataFrame({"": made_with()})


@cache
def made_with() -> dict[str, str]:
    """The same as plain text by name; with the commit where the library is a git checkout."""
    rows = {"maft_lib": __version__, "python": platform.python_version()}
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists() and shutil.which("git"):
        asked = (["describe", "--always", "--exclude=*"], ["status", "--porcelain", "--", "maft_lib"])
        commands = (["git", "-C", str(root), *words] for words in asked)
        said = [subprocess.run(words, capture_output=True, text=True).stdout for words in commands]
        rows["commit"] = said[0].strip() + ("-dirty" if said[1] else "")  # if code differs from it
    rows |= {name: version(name) for name in PACKAGES}
    rows |= {"processor": f"{platform.machine()}, {os.cpu_count()} cores", "GPU": "none"}
    if may_have_gpu():
        import torch  # takes seconds, so only where there is something to ask

        gpus = map(torch.cuda.get_device_name, range(torch.cuda.device_count()))
        rows["GPU"] = ", ".join(gpus) or "none"
    return rows
