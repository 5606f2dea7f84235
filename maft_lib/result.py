"""What a study leaves behind: scores, costs and the evidence. Does not know how it came about."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from maft_lib import metrics
from maft_lib.config import Config
from maft_lib.debate import Debate
from maft_lib.society import Society
from maft_lib.training.data import AgentData, Example


@dataclass(repr=False)
class Result:
    """What a method did on a task: `frame` is tidy (see `metrics`), the rest is the evidence.

    `societies[l]` are the agents after l iterations of finetuning, `evaluations[l]` their debates on
    the eval problems, `training[l]` the debates that made the data of iteration l + 1, and `data[l]`
    that data. `costs` has a row per iteration and phase (`data`, `answers`, and `training` with a row
    per agent), see `metrics.cost_frame`. `config` is what it ran with, the method's own changes
    included. `train_ids` and `eval_ids` are the problems in their order; `note` says where train
    problems come from if that is a test split, as the frame's column `train_source` always does.
    """

    method: str
    task: str
    frame: pd.DataFrame
    societies: list[Society] = field(default_factory=list)
    evaluations: list[list[Debate]] = field(default_factory=list)
    training: list[list[Debate]] = field(default_factory=list)
    data: list[list[AgentData] | list[Example]] = field(default_factory=list)
    train_ids: tuple[str, ...] = ()
    eval_ids: tuple[str, ...] = ()
    note: str | None = None
    costs: pd.DataFrame = field(default_factory=pd.DataFrame)
    config: Config | None = None

    def __repr__(self) -> str:
        accuracies = metrics.accuracy(self.frame).round(1).to_string(index=False)
        return f"Result({self.method!r}, {self.task!r})\n{accuracies}"
