"""Finetuning by a server's fine-tuning jobs: files and fine_tuning/jobs of OpenAI's protocol.

A run that was killed goes on waiting for the same jobs. What a job made is a checkpoint of the store: a
folder with the new model's name in it, and what is known of the training. Knows no debates.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from maft_lib.backends import BackendError
from maft_lib.backends.openai_calls import Job, begin, losses, poll
from maft_lib.backends.openai_client import MODEL_FILE, connect, pause, served_name
from maft_lib.config import Config
from maft_lib.events import is_heard, trained
from maft_lib.seeds import derive_seed
from maft_lib.store import Store
from maft_lib.store.checkpoints import LOG, find_checkpoint, make_checkpoint
from maft_lib.store.files import explained

if TYPE_CHECKING:  # their modules stand above the backends
    from maft_lib.society import Agent
    from maft_lib.training.data import Example

FOLDER = "openai_jobs"  # of runs_dir: a file per job, named by its key


def finetune_hosted(jobs: Sequence[tuple[Agent, Sequence[Example]]], config: Config) -> list[Path]:
    """Trains each agent on its examples by a job of its own, all at once (Appendix B.3, GPT-3.5).

    Returns the folders of the new checkpoints, in order; `openai.json` in each names the model. An
    agent without examples keeps its model, with a warning. What is in the store is not trained again
    and needs no server. Raises `BackendError` if the server refuses, if a job fails, for preferences
    and for LoRA.
    """
    folders = [Path(agent.model) for agent, _ in jobs]
    wanted: dict[int, Job] = {}
    for place, (agent, examples) in enumerate(jobs):
        if examples:
            wanted[place] = _job(agent, examples, config)
        else:
            warnings.warn(
                f"{agent.name} has no example to learn from and keeps its model.", stacklevel=3
            )
    by_key = {job.key: job for job in wanted.values()}
    with closing(Store(config.path(config.runs_dir))) as store:
        stored = {key: find_checkpoint(store.folder, key) for key in by_key}
        made = {key: folder for key, folder in stored.items() if folder is not None}
        if missing := {key: job for key, job in by_key.items() if key not in made}:
            made |= _train(missing, store, config)
    return [made[wanted[i].key] if i in wanted else folder for i, folder in enumerate(folders)]


def _job(agent: Agent, examples: Sequence[Example], config: Config) -> Job:
    if config.lora_rank is not None:
        raise BackendError(
            f"{agent.name}: lora_rank is not for fine-tuning jobs, whose server decides what to train: "
            "leave it out, or use another backend."
        )
    if any(example.rejected is not None for example in examples):
        raise BackendError(
            f"{agent.name}: fine-tuning jobs here learn responses, not preferences: use another method "
            "than multiagent_ft_dpo, or another backend."
        )
    loss_on = config.critic_loss_on if agent.role == "critic" else "final_turn"
    start = agent.model if config.train_from == "previous" else config.base_model
    rows = [_row(example, loss_on) for example in examples]
    return Job(agent.name, served_name(start), rows, _settings(agent, config), loss_on)


def _row(example: Example, loss_on: str) -> dict:
    """A line of the training file; assistant turns of weight 0 are read, not learned from."""
    unlearned = len(example.messages) - 1 if loss_on == "final_turn" else 0
    return {
        "messages": [
            {**message, "weight": 0} if message["role"] == "assistant" and i < unlearned else message
            for i, message in enumerate(example.messages)
        ]
    }


def _settings(agent: Agent, config: Config) -> dict:
    """The settings of the agent's role, as `finetuning.hyper_parameters` names them."""
    critic = agent.role == "critic"
    return {
        "num_train_epochs": config.critic_num_train_epochs if critic else config.num_train_epochs,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "learning_rate_multiplier": config.learning_rate_multiplier,
        "seed": derive_seed(config.seed, agent.name, "finetune") % 2**31,
    }


def _train(jobs: dict[str, Job], store: Store, config: Config) -> dict[str, Path]:
    """Begins what is not begun and polls all jobs until each has made its checkpoint, by key."""
    import openai

    client = connect(openai.OpenAI, config.request_timeout, config.max_retries)
    folder = config.path(config.runs_dir) / FOLDER
    made: dict[str, Path] = {}
    began = time.monotonic()
    hidden = is_heard()
    with client, tqdm(total=len(jobs), desc="fine-tuning jobs", leave=False, disable=hidden) as bar:
        while True:
            left = {key: job for key, job in jobs.items() if key not in made}
            patience = _begin(list(left.values()), folder, client, config.max_retries)
            for key, job in left.items():
                if job.id and (done := poll(job, folder, client, config.max_retries)) is not None:
                    made[key] = _keep(job, done, losses(job, client, config.max_retries), store)
                    bar.update()
                    trained()
            if len(made) == len(jobs):
                return made
            # Polling costs nothing, but a job takes minutes or hours.
            time.sleep(max(patience, min(30.0, 0.5 + (time.monotonic() - began) / 20)))


def _begin(jobs: list[Job], folder: Path, client: Any, max_retries: int) -> float:
    """Begins what has no id yet; returns the seconds after which to try what the server put off.

    A server may run only so many jobs at a time (429): the others wait for their turn as long as one
    runs. Raises `BackendError` when the retries are used up.
    """
    patience = 0.0
    for job in jobs:
        if job.id or (found := begin(job, folder, client)) is None:
            continue
        job.tries += not any(other.id for other in jobs)
        if job.tries > max_retries or not found.passing:
            raise BackendError(found.sentence)
        patience = max(patience, found.seconds, pause(job.tries))
    return patience


def _keep(job: Job, done: Any, losses: list[float], store: Store) -> Path:
    """Stores what a job made; says so in a line, since a bar freezes in a notebook run by papermill."""
    log = {
        "settings": job.settings,
        "loss_on": job.loss_on,
        "lora_rank": None,
        "lora_alpha": None,
        "dpo_beta": None,
        "num_examples": len(job.rows),
        "num_tokens": done.trained_tokens,
        "seconds": (done.finished_at or time.time()) - done.created_at,  # those in the queue, too
        "peak_memory": None,
        "losses": losses,
    }
    named = {"model": done.fine_tuned_model, "job": job.id, "trained_from": job.model}

    def write(folder: Path) -> None:
        with explained(folder):
            (folder / MODEL_FILE).write_text(json.dumps(named, indent=1) + "\n")
            (folder / LOG).write_text(json.dumps(log, indent=1) + "\n")

    checkpoint = make_checkpoint(store.folder, job.key, write)
    line = f"{job.agent}: {job.id} made {done.fine_tuned_model} in {log['seconds']:.0f} s."
    tqdm.write(line, file=sys.stdout)
    return checkpoint
