"""What every study ran with, and what came out: a small file each, beside the store.

Knows nothing of how a study runs.
"""

from __future__ import annotations

import os

import pandas as pd

from maft_lib.config import Config
from maft_lib.environment import made_with
from maft_lib.records import save_record

FOLDER = "studies"  # of runs_dir


def save_provenance(method: str, task: str, config: Config, frame: pd.DataFrame) -> None:
    """Writes down what a study ran with and its accuracies, where runs can be written at all.

    Code and package versions and hardware are those of now. `frame` is that of a `Result`. Raises
    `StoreError` if the disk refuses.
    """
    runs = config.path(config.runs_dir)
    accuracy = frame.groupby("iteration").correct.mean()
    if os.access(runs, os.W_OK):
        save_record(
            runs / FOLDER,
            {
                "method": method,
                "task": task,
                "accuracy": {str(iteration): share for iteration, share in accuracy.items()},
                "config": config.model_dump(mode="json"),
                "made_with": made_with(),
            },
        )
