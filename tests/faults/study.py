"""The study that the fault tests disturb: python -m tests.faults.study RUNS TABLES

The smoke profile's with two agents and few problems. Prints, at its end, how many requests reached the
model and how many agents were trained.
"""

import sys
from pathlib import Path

import maft_lib as maft
from maft_lib.workers import warm_up


def main(runs, tables):
    sizes = {"num_agents": 2, "num_train": 12, "num_eval": 4}
    config = maft.load_config("smoke", runs_dir=runs, num_workers=2, **sizes)
    warm_up()  # so that there are processes to disturb before agents are trained
    from maft_lib.backends.opening import open_backend
    from maft_lib.tables import save_table

    before = set(checkpoints(runs))
    result = maft.run_study("multiagent_ft", "arithmetic", config)
    save_table(maft.metrics.accuracy(result.frame), Path(tables) / "table")
    result.frame.to_csv(Path(tables) / "scores.csv")
    made = len(set(checkpoints(runs)) - before)
    print(f"MADE {open_backend(config).num_calls} {made}")


def checkpoints(runs):
    """Names, and when they were made."""
    return [(path.name, path.stat().st_mtime_ns) for path in Path(runs).glob("checkpoints/[!.]*")]


if __name__ == "__main__":
    main(*sys.argv[1:])
