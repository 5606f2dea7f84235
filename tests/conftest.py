"""Fixtures that the tests share: small configs, hand-made debates, the miniature model."""

import os
import signal
from pathlib import Path

import pytest
import torch

from maft_lib.backends.scorer import Scorer
from maft_lib.config import Config
from maft_lib.debate import Debate, Turn
from maft_lib.profiles import load_config
from maft_lib.society import Agent
from maft_lib.store import Store
from maft_lib.tasks.problem import Problem, problem_id
from maft_lib.training.data import Example

# The folder of the real GSM8K, MATH and MMLU files, if there is one; tests that need them skip without.
_FOLDERS = (os.environ.get("MAFT_DATA_DIR"), Path(__file__).parents[2] / "shared" / "data")
DATA = next((Path(f) for f in _FOLDERS if f and (Path(f) / "math_test.jsonl").is_file()), None)

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
torch.set_num_threads(1)  # as the workers do; two threads fight over a tiny model


TURNS = (
    {"role": "user", "content": "What is the result of 1+2*3+4-5*1?"},
    {"role": "assistant", "content": "2*3=6. The answer is \\boxed{6}."},
)


@pytest.fixture
def config(tmp_path):
    """The smoke profile with a store of its own."""
    return load_config("smoke", runs_dir=str(tmp_path / "runs"), figures_dir=str(tmp_path / "figures"))


@pytest.fixture
def model(config):
    """The folder of the shipped model."""
    return config.base_model


@pytest.fixture
def agent(model):
    """A generation agent that is the shipped model."""
    return Agent("generation-1", "generator", model)


@pytest.fixture
def examples():
    """Sixteen times the same short conversation to learn."""
    return [Example(f"id {i}", TURNS) for i in range(16)]


@pytest.fixture
def scorer(tmp_path):
    """Scores in this process, with a store of its own."""
    scorer = Scorer(Store(tmp_path / "scores"), Config(device="cpu"))
    scorer.num_workers = 0
    return scorer


def problem(question: str = "What is 1+1?", answer: str = "2", task: str = "arithmetic") -> Problem:
    return Problem(problem_id(question), task, question, answer)


def debate(answers, vote, question: str = "What is 1+1?", truth: str = "2") -> Debate:
    """A finished debate with `answers[agent][round]`; None stands for a response without an answer."""
    turns = tuple(
        tuple(
            Turn(
                asked=f"{question} round {m}",
                summary=None if m == 0 else "summary",
                response="no idea" if answer is None else f"I say \\boxed{{{answer}}}.",
                answer=answer,
            )
            for m, answer in enumerate(agent)
        )
        for agent in answers
    )
    return Debate(problem(question, truth), turns, vote)
