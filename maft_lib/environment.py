"""What a result was made with: versions and hardware, for the set-up cell of every notebook."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import pandas as pd

from maft_lib.workers import may_have_gpu

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "pandas", "papermill")


def describe_environment() -> pd.DataFrame:
    """Package versions, Python, processor and GPU, one row each."""
    import maft_lib

    rows = {"maft_lib": maft_lib.__version__, "python": platform.python_version()}
    rows |= {name: version(name) for name in PACKAGES}
    rows |= {"processor": f"{platform.machine()}, {os.cpu_count()} cores"}
    rows["GPU"] = ", ".join(_gpus()) or "none"
    return pd.DataFrame({"": rows})


def _gpus() -> list[str]:
    if not may_have_gpu():
        return []
    import torch  # takes seconds, so only where there is something to ask

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
