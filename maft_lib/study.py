"""A study while it runs, in the words in which the recipes of `methods` are written, and its result.

Everything slow goes through the store, so what two methods have in common (Base, Majority and Debate
share their first round) is generated once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import pandas as pd

from maft_lib import events, metrics
from maft_lib.backends import Backend, Request, Sampling, generate
from maft_lib.config import Config
from maft_lib.debate import Debate, answered, run_debates
from maft_lib.grading import is_correct
from maft_lib.prompts import load_prompts
from maft_lib.seeds import derive_seed
from maft_lib.society import Agent, Society, base_society, save_society
from maft_lib.tasks import PUBLISHED, WITH_LEVELS, canonical, load_problems
from maft_lib.tasks.problem import Problem, normalised
from maft_lib.tasks.published import is_own, note_on_train
from maft_lib.training import FinetuneError
from maft_lib.training.data import (
    AgentData,
    Example,
    build_finetuning_data,
    portion,
    right_responses,
)
from maft_lib.training.finetuning import check_trainable, finetune_all, training_log


@dataclass(repr=False)
class Result:
    """What a method did on a task: `frame` is tidy (see `metrics`), the rest is the evidence.

    `societies[l]` are the agents after l iterations of finetuning, `evaluations[l]` their debates on
    the eval problems, `training[l]` the debates that made the data of iteration l + 1, and `data[l]`
    that data. `costs` has a row per iteration and phase (see `metrics.cost_frame`). `config` is what it
    ran with, the method's own changes included. `train_ids` and `eval_ids` are the problems in their
    order; `note` says where train problems come from if that is a test split.
    """

    method: str
    task: str
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
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


class Study:
    """One run of a method: the problems of the task, and what happens to them.

    `**changes` are parameters of the config that hold for one step only. With `config.eval_task` what
    is learned on one task is tested on another. If the method `learns`, a model that cannot be trained
    is refused before the first debate.
    """

    def __init__(
        self,
        method: str,
        task: str,
        config: Config,
        backend: Backend,
        report: Callable[[str], None] = print,
        learns: bool = False,
    ):
        self.learns = learns
        self.method, self.task, self.config, self.backend = method, canonical(task), config, backend
        self.report = report
        self.train = problems(self.task, "train", config)
        self.eval = problems(config.eval_task or self.task, "eval", config)
        check_disjoint(self.train, self.eval)
        self._frames: list[pd.DataFrame] = []
        self._costs: list[dict] = []
        train_ids, eval_ids = (tuple(p.id for p in split) for split in (self.train, self.eval))
        note = note_on_train(self.train)
        self._result = Result(method, self.task, train_ids=train_ids, eval_ids=eval_ids, note=note)
        if note:
            report(f"{self.task}: {note}")

    def change(self, **changes: Any) -> None:
        """Changes parameters for the whole study, as a method's definition demands."""
        self.config = self.config.replace(**changes)

    def base_society(self, model: str | None = None, num_agents: int | None = None) -> Society:
        """N generation and N critic agents that share `model`; the base model summarizes."""
        base = self.config.base_model
        return base_society(model or base, num_agents or self.config.num_agents, summarizer=base)

    def debate(
        self, society: Society, asked: Sequence[Problem], iteration: int = 0, **changes: Any
    ) -> list[Debate]:
        """The debates of a society; first rounds are shared with every debate of the same agents."""
        if self.learns:
            check_trainable(self.config)
        config = self.config.replace(**changes) if changes else self.config
        return run_debates(society, asked, config, self.backend, iteration)

    def learn(self, society: Society, iteration: int, **changes: Any) -> list[Debate]:
        """The debates on the train problems that make the data of `iteration`."""
        with events.during("data", iteration):
            debates = self.debate(society, self.train, iteration, **changes)
        self._result.training.append(debates)
        self._cost(iteration, "data", metrics.spent(debates))
        return debates

    def _cost(self, iteration: int, phase: str, spent: dict) -> None:
        self._costs.append({"iteration": iteration, "phase": phase, **spent})

    def second_tries(
        self, learner: Society, debates: Sequence[Debate], iteration: int
    ) -> list[Example]:
        """STaR: problems answered wrong, asked again with the ground truth as a hint.

        The right responses, as answers to the problem without its hint.
        """
        wrong = [d for d in debates if not is_correct(d.answers[0][0], d.problem)]
        prompts = load_prompts(self.config.path(self.config.prompts) if self.config.prompts else None)
        sampling = Sampling.of(self.config)
        requests = [
            Request(learner.generators[0].model, (prompts.hint(d.problem),), sampling, seed)
            for d in wrong
            for seed in [derive_seed(self.config.seed, iteration, d.problem.id, "hint")]
        ]
        with events.during("data", iteration):
            completions = generate(self.backend, requests)
        self._cost(iteration, "data", metrics.spent(completions))
        tries = []
        for debate, completion in zip(wrong, completions):
            turn = replace(debate.turns[0][0], response=completion.text)
            turn = answered(turn, completion, debate.problem)
            tries.append(replace(debate, turns=((turn,),)))
        return right_responses(tries)

    def evaluate(
        self,
        society: Society,
        iteration: int = 0,
        pick: metrics.Pick = metrics.final_vote,
        **changes: Any,
    ) -> None:
        """Debates the eval problems and scores the answers that `pick` takes from the debates.

        The iteration is in no seed here, so what is compared shares its random numbers.
        """
        start = time.perf_counter()
        with events.during("answers", iteration):
            debates = self.debate(society, self.eval, **changes)
        run = {
            "method": self.method,
            "task": self.eval[0].task,
            "model": self.config.model_name_or_path,
            "seed": self.config.seed,
            "iteration": iteration,
            "train_source": ", ".join(sorted({p.source or "unknown" for p in self.train})),
        }
        if self.config.eval_task:
            run["trained_on"] = self.task
        frame = metrics.scores(debates, pick).assign(**run)
        self._frames.append(frame)
        events.evaluated(frame)
        self._cost(iteration, "answers", metrics.spent(debates))
        self._result.societies.append(society)
        self._result.evaluations.append(debates)
        accuracy, runs = frame.correct.mean(), self.config.path(self.config.runs_dir)
        save_society(runs, society, **run, accuracy=accuracy, profile=self.config.profile)
        trained_on = f"{self.task} to " if self.config.eval_task else ""
        self.report(
            f"{trained_on}{run['task']}, seed {self.config.seed}, {self.method}, iteration {iteration}"
            f": {100 * accuracy:.1f} % right ({time.perf_counter() - start:.1f} s)"
        )

    def finetune(self, jobs: Sequence[tuple[Agent, Sequence[Example]]], iteration: int) -> list[str]:
        """Trains agents side by side and returns their new models, in order."""
        with events.during("training", iteration, len(jobs)):
            folders = finetune_all(jobs, self.config)
        for (agent, examples), folder in zip(jobs, folders):
            if examples:
                log = training_log(folder)
                spent = {"agent": agent.name, "num_training_tokens": log["num_tokens"]}
                spent |= {
                    "num_updates": len(log["losses"]),
                    "seconds": log["seconds"],
                    "peak_memory": log.get("peak_memory"),
                }
                self._cost(iteration, "training", spent)
        return [str(folder) for folder in folders]

    def final_loss(self, model: str) -> float:
        """Mean training loss of the last epoch of a finetuned model, in nats per token.

        Infinite for a model that had nothing to learn from. Raises `FinetuneError` for a model whose
        server reported no losses.
        """
        if not (log := training_log(model)):
            return math.inf
        if not log["losses"]:
            raise FinetuneError(f"{model} was trained without losses: leave out {self.method}.")
        last = len(log["losses"]) // log["settings"]["num_train_epochs"]
        return sum(log["losses"][-last:]) / last

    def specialise(
        self,
        critics: bool = True,
        shared_parts: int | None = None,
        relabel: Callable[[Debate], Debate] | None = None,
    ) -> Iterator[tuple[int, Society]]:
        """Algorithm 1: yields (iteration, society) after each iteration of multiagent finetuning.

        Every generation agent and, unless `critics` is False, every critic agent learns from what it
        said itself. With `shared_parts` all agents of a role are one model, which learns from one of so
        many parts of what they all said. `relabel` puts another label in the place of a debate's vote.
        """
        society = self.base_society()
        num = len(society.generators)
        for iteration in range(1, self.config.num_iterations + 1):
            debates = self.learn(society, iteration)
            if relabel:
                debates = list(map(relabel, debates))
            data = build_finetuning_data(debates, self.config.w, self.config.seed)
            agents = [*society.generators, *(society.critics if critics else ())]
            examples = [d.generation for d in data] + [d.critic for d in data if critics]
            if shared_parts:
                roles = [list(chain(*examples[n : n + num])) for n in range(0, len(examples), num)]
                examples = [portion(role, shared_parts, self.config.seed) for role in roles]
            self.remember(list(chain(*examples)) if shared_parts else data)
            alike = num if shared_parts else 1
            models = self.finetune(list(zip(agents[::alike], examples)), iteration)
            trained = tuple(replace(agent, model=models[n // alike]) for n, agent in enumerate(agents))
            learned = trained[num:] or society.critics
            society = Society(trained[:num], learned, society.summarizer)
            yield iteration, society

    def remember(self, data: list[AgentData] | list[Example]) -> None:
        """Keeps the data of an iteration in the result."""
        self._result.data.append(data)

    def result(self) -> Result:
        """All that was evaluated, and what it cost."""
        run = {"method": self.method, "task": self.task, "seed": self.config.seed}
        return replace(
            self._result,
            frame=pd.concat(self._frames, ignore_index=True),
            costs=metrics.cost_frame(self._costs).assign(**run),
            config=self.config,
        )


def problems(task: str, split: str, config: Config) -> list[Problem]:
    """The problems of a split as the config wants them."""
    task = canonical(task)
    num = config.num_problems(split, task)
    levels = config.levels if task in WITH_LEVELS or is_own(task) else None
    folder = str(config.path(config.data_dir)) if config.data_dir and task in PUBLISHED else None
    return load_problems(
        task, split, num, config.seed, levels, folder, config.max_operand, config.on_bad_records
    )


def check_disjoint(train: Sequence[Problem], evaluation: Sequence[Problem]) -> None:
    """Raises `ValueError` if a problem is both trained on and evaluated, by its id or its question."""
    ids = {problem.id for problem in evaluation}
    asked = {normalised(problem.question) for problem in evaluation}
    shared = [p for p in train if p.id in ids or normalised(p.question) in asked]
    if shared:
        raise ValueError(
            f"{len(shared)} problems are both in train and eval, {shared[0].id} for one: take them out "
            "of one of the two."
        )
