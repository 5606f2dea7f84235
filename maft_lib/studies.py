"""The methods of the paper as recipes: Algorithms 1 and 2 and the baselines. Knows no engine.

`run_study` runs one method on one task. Everything slow goes through the store, so what two methods
have in common (Base, Majority and Debate share their first round) is generated once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import pandas as pd

from maft_lib import metrics
from maft_lib.backends import Backend
from maft_lib.backends.cached import CachedBackend
from maft_lib.config import METHODS, Config, check_name
from maft_lib.debate import Agent, Debate, Society, base_society, run_debates
from maft_lib.finetune_data import AgentData, Example, build_finetuning_data, final_responses
from maft_lib.finetuning import finetune_all
from maft_lib.store import Store
from maft_lib.tasks import PUBLISHED, WITH_LEVELS, canonical, load_problems
from maft_lib.tasks.problem import Problem, normalised
from maft_lib.tasks.splits import note_on_train


@dataclass
class Result:
    """What a method did on a task: `frame` is tidy (see `metrics`), the rest is the evidence.

    `societies[l]` are the agents after l iterations of finetuning, `evaluations[l]` their debates on
    the eval problems, `training[l]` the debates that made the data of iteration l + 1, and `data[l]`
    that data. `train_ids` and `eval_ids` are the problems in their order; `note` says where train
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

    def _repr_html_(self) -> str:
        return metrics.accuracy(self.frame).round(1).to_html(index=False)


def run_study(
    method: str,
    task: str,
    config: Config,
    backend: Backend | None = None,
    report: Callable[[str], None] = print,
) -> Result:
    """Runs one method of Section 3 on one task and evaluates it after every iteration.

    `method` is one of `maft_lib.config.METHODS`. Without a backend the config's own is used, with the
    store in front. `report` gets a line per iteration. Raises `ConfigError` for an unknown method and
    `ValueError` for an unknown task.
    """
    check_name("method", method, METHODS)
    study = Study(method, task, config, backend or open_backend(config), report)
    recipes[method](study)
    return study.result()


class Study:
    """One run of a method: the problems of the task, and what happens to them."""

    def __init__(
        self,
        method: str,
        task: str,
        config: Config,
        backend: Backend,
        report: Callable[[str], None] = print,
    ):
        self.method, self.task, self.config, self.backend = method, canonical(task), config, backend
        self.report = report
        self.train = problems(self.task, "train", config)
        self.eval = problems(self.task, "eval", config)
        check_disjoint(self.train, self.eval)
        self._frames: list[pd.DataFrame] = []
        ids = [tuple(problem.id for problem in split) for split in (self.train, self.eval)]
        note = note_on_train(self.train)
        self._result = Result(
            method, self.task, pd.DataFrame(), train_ids=ids[0], eval_ids=ids[1], note=note
        )
        if note:
            report(f"{self.task}: {note}")

    def base_society(self, model: str | None = None) -> Society:
        """N generation and N critic agents that share `model`; the base model summarizes."""
        base = self.config.base_model
        return base_society(model or base, self.config.num_agents, summarizer=base)

    def debate_on_train(self, society: Society, iteration: int) -> list[Debate]:
        """The debates that make the data of the next iteration."""
        debates = run_debates(society, self.train, self.config, self.backend, iteration)
        self._result.training.append(debates)
        return debates

    def evaluate(
        self, society: Society, iteration: int = 0, pick: metrics.Pick = metrics.final_vote
    ) -> None:
        """Debates the eval problems and scores the answers that `pick` takes from the debates."""
        start = time.perf_counter()
        debates = run_debates(society, self.eval, self.config, self.backend, iteration)
        run = {
            "method": self.method,
            "task": self.task,
            "model": self.config.model_name_or_path,
            "seed": self.config.seed,
            "iteration": iteration,
            "train_source": ", ".join(sorted({p.source or "unknown" for p in self.train})),
        }
        frame = metrics.scores(debates, pick).assign(**run)
        self._frames.append(frame)
        self._result.societies.append(society)
        self._result.evaluations.append(debates)
        self.report(
            f"{self.task}, seed {self.config.seed}, {self.method}, iteration {iteration}: "
            f"{100 * frame.correct.mean():.1f} % right ({time.perf_counter() - start:.1f} s)"
        )

    def finetune(self, jobs: Sequence[tuple[Agent, Sequence[Example]]]) -> list[str]:
        """Trains agents side by side and returns their new models, in order."""
        return [str(folder) for folder in finetune_all(jobs, self.config)]

    def remember(self, data: list[AgentData] | list[Example]) -> None:
        """Keeps the data of an iteration in the result."""
        self._result.data.append(data)

    def result(self) -> Result:
        """All that was evaluated."""
        return replace(self._result, frame=pd.concat(self._frames, ignore_index=True))


def base(study: Study) -> None:
    """Base: one model answers once (Section 3.2). Its debate is shared with the next two."""
    study.evaluate(study.base_society(), pick=metrics.first_answer)


def majority(study: Study) -> None:
    """Majority: N samples of one model, answered by their majority vote (Section 3.2)."""
    study.evaluate(study.base_society(), pick=metrics.first_vote(study.config.seed))


def debate(study: Study) -> None:
    """Debate: N agents that share one model debate for M rounds (Du et al., 2023)."""
    study.evaluate(study.base_society())


def single_agent_ft(study: Study) -> None:
    """Single-agent FT (Section 2.2): one model trained on final responses that match the vote.

    The finetuned model is then used as every agent, and generates the next iteration's data.
    """
    society = study.base_society()
    study.evaluate(society)
    for iteration in range(1, study.config.num_iterations + 1):
        examples = final_responses(study.debate_on_train(society, iteration))
        study.remember(examples)
        (model,) = study.finetune([(society.generators[0], examples)])
        society = study.base_society(model)
        study.evaluate(society, iteration)


def multiagent_ft(study: Study) -> None:
    """Multiagent FT (Algorithm 1): every agent is trained on what it said itself."""
    society = study.base_society()
    study.evaluate(society)
    for iteration in range(1, study.config.num_iterations + 1):
        debates = study.debate_on_train(society, iteration)
        data = build_finetuning_data(debates, study.config.w, study.config.seed)
        study.remember(data)
        agents = [*society.generators, *society.critics]
        examples = [d.generation for d in data] + [d.critic for d in data]
        models = study.finetune(list(zip(agents, examples)))
        trained = [replace(agent, model=model) for agent, model in zip(agents, models)]
        num = len(society.generators)
        society = Society(tuple(trained[:num]), tuple(trained[num:]), society.summarizer)
        study.evaluate(society, iteration)


recipes: dict[str, Callable[[Study], None]] = {
    "base": base,
    "majority": majority,
    "debate": debate,
    "single_agent_ft": single_agent_ft,
    "multiagent_ft": multiagent_ft,
}


def problems(task: str, split: str, config: Config) -> list[Problem]:
    """The problems of a split as the config wants them."""
    num = config.num_train if split == "train" else config.num_eval
    task = canonical(task)
    levels = config.levels if task in WITH_LEVELS else None
    folder = str(config.path(config.data_dir)) if config.data_dir and task in PUBLISHED else None
    return load_problems(
        task, split, num, config.seed, levels, folder, config.max_operand, config.on_bad_records
    )


def check_disjoint(train: Sequence[Problem], evaluation: Sequence[Problem]) -> None:
    """Raises `ValueError` if a problem is both trained on and evaluated, by its id or by its question.

    Questions are compared with case, white space, punctuation and LaTeX spacing folded.
    """
    ids = {problem.id for problem in evaluation}
    asked = {normalised(problem.question) for problem in evaluation}
    shared = [p for p in train if p.id in ids or normalised(p.question) in asked]
    if shared:
        raise ValueError(
            f"{len(shared)} problems are both in train and eval, {shared[0].id} for one: "
            f"{shared[0].question[:60]!r}."
        )


def open_backend(config: Config) -> CachedBackend:
    """The config's backend with its store in front; the same one for the same settings."""
    return _open(
        str(config.path(config.runs_dir)),
        config.device,
        config.dtype,
        config.num_workers,
        config.max_batch_size,
    )


@cache
def _open(
    runs_dir: str, device: str, dtype: str, num_workers: int | None, max_batch_size: int | None
) -> CachedBackend:
    from maft_lib.backends.transformers import TransformersBackend

    inner = TransformersBackend(device, dtype, num_workers, max_batch_size)
    return CachedBackend(inner, Store(runs_dir))
