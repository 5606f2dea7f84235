"""What agents learned from, as JSON lines that `datasets` and trl read. Knows no agents' models.

A row has `problem_id`, `messages` (the whole conversation), `prompt` (all but its last turn) and
`completion` (the last turn, which is trained on). A preference also has `chosen`, which is the
completion under the name that trl's DPOTrainer looks for, and `rejected`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from maft_lib.exports.layout import dataset_folder
from maft_lib.study import Result
from maft_lib.training.data import AgentData, Example, preferences

Data = list[AgentData] | list[Example]


class Dataset(NamedTuple):
    """What one agent learned from in an iteration.

    The split `train` is what it was trained on. A critic's other splits are `corrected` (D^C-), `kept`
    (D^C+) and, where the method trains critics on something else or not at all, `mixture` (D^C).
    """

    iteration: int
    agent: str
    splits: dict[str, list[Example]]

    @property
    def folder(self) -> str:
        """Where it lies, relative to the folder of all datasets."""
        return dataset_folder(self.iteration, self.agent)

    @property
    def config_name(self) -> str:
        """What `load_dataset` calls it."""
        return f"iteration-{self.iteration}-{self.agent}"


def datasets_of(result: Result) -> list[Dataset]:
    """Every dataset of a result, by iteration, generation agents first."""
    return [
        dataset for place, data in enumerate(result.data) for dataset in _datasets(result, place, data)
    ]


def _datasets(result: Result, place: int, data: Data) -> list[Dataset]:
    of_agents = [part for part in data if isinstance(part, AgentData)]
    if not of_agents:
        return [Dataset(place + 1, "generation-1", {"train": list(data)})]  # type: ignore[arg-type]
    preferred = preferences(result.training[place]) if result.method == "multiagent_ft_dpo" else None
    generation = [
        Dataset(place + 1, f"generation-{n}", {"train": part.generation})
        for n, part in enumerate(of_agents, start=1)
    ]
    critic = [
        Dataset(
            place + 1,
            f"critic-{n}",
            _critic_splits(result.method, part, preferred[n - 1] if preferred else None),
        )
        for n, part in enumerate(of_agents, start=1)
    ]
    return generation + critic


def _critic_splits(
    method: str, data: AgentData, preferred: list[Example] | None
) -> dict[str, list[Example]]:
    parts = {"corrected": data.corrected, "kept": data.kept}
    if preferred is not None:
        return {"train": preferred, "mixture": data.critic, **parts}
    return {"mixture" if method == "multiagent_ft_wo_critic" else "train": data.critic, **parts}


def row(example: Example) -> dict[str, Any]:
    """An example as plain JSON values."""
    messages = list(example.messages)
    values: dict[str, Any] = {
        "problem_id": example.problem_id,
        "messages": messages,
        "prompt": messages[:-1],
        "completion": messages[-1:],
    }
    if example.rejected is not None:
        values["chosen"] = messages[-1:]
        values["rejected"] = [{"role": "assistant", "content": example.rejected}]
    return values


def write_datasets(datasets: list[Dataset], folder: Path) -> None:
    """One file per split, `iteration-l/<agent>/<split>.jsonl`."""
    for dataset in datasets:
        (folder / dataset.folder).mkdir(parents=True)
        for split, examples in dataset.splits.items():
            lines = (json.dumps(row(example)) + "\n" for example in examples)
            (folder / dataset.folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def read_data(folder: Path, iteration: int, num_agents: int | None) -> Data:
    """The data of an iteration again; `num_agents` is None where one model learned alone."""
    if num_agents is None:
        return _read(folder / dataset_folder(iteration, "generation-1"), "train")
    return [_agent_data(folder, iteration, n) for n in range(1, num_agents + 1)]


def _agent_data(folder: Path, iteration: int, n: int) -> AgentData:
    critic = folder / dataset_folder(iteration, f"critic-{n}")
    mixed = "mixture" if (critic / "mixture.jsonl").is_file() else "train"
    generation = _read(folder / dataset_folder(iteration, f"generation-{n}"), "train")
    return AgentData(generation, *(_read(critic, split) for split in (mixed, "corrected", "kept")))


def _read(folder: Path, split: str) -> list[Example]:
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [_example(json.loads(line)) for line in lines]


def _example(values: dict[str, Any]) -> Example:
    rejected = values["rejected"][0]["content"] if "rejected" in values else None
    return Example(values["problem_id"], tuple(values["messages"]), rejected)
