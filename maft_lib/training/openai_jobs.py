"""Finetuning by a server's fine-tuning jobs, by OpenAI's protocol (Appendix B.3, GPT-3.5).

A job costs money and hours, so each carries its key: a study that was killed finds it again among the
server's jobs. What it made is a checkpoint of the store: a folder with the new model's name in it, and
what is known of its training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from maft_lib.backends import BackendError
from maft_lib.backends.openai import MODEL_FILE, connect, said, scrub, served_name, server_identity
from maft_lib.config import Config
from maft_lib.seeds import derive_seed
from maft_lib.society import Agent
from maft_lib.store.files import LOG, content_key, make_checkpoint
from maft_lib.training.data import Example
from maft_lib.workers import raise_if_interrupted

MARK = "maft_lib"  # the job's metadata under which its key is


class HostedJob(NamedTuple):
    """What one agent is to learn, from which model, with which settings."""

    key: str  # the store's, of the checkpoint: everything that the new model depends on
    agent: str
    model: str
    rows: list[dict]  # the lines of the training file
    settings: dict
    loss_on: str


def plan_hosted(
    jobs: Sequence[tuple[Agent, Sequence[Example]]], config: Config
) -> tuple[list[str], dict[str, HostedJob], Callable[[Sequence], Iterator[tuple[int, Path]]]]:
    """Checkpoints' keys, jobs by key, and what runs them. `BackendError` for LoRA."""
    if config.lora_rank is not None:
        raise BackendError("fine-tuning jobs train no adapters: leave lora_rank out.")
    hosted = []
    for agent, examples in jobs:
        critic = agent.role == "critic"
        loss_on = config.critic_loss_on if critic else "final_turn"
        settings = {
            "num_train_epochs": config.critic_num_train_epochs if critic else config.num_train_epochs,
            "per_device_train_batch_size": config.per_device_train_batch_size,
            "learning_rate_multiplier": config.learning_rate_multiplier,
            "seed": derive_seed(config.seed, agent.name, "finetune") % 2**31,
        }
        model = served_name(agent.model if config.train_from == "previous" else config.base_model)
        rows = [{"messages": _weighted(example, loss_on)} for example in examples]
        key = content_key(["openai", server_identity(), model, rows, settings])
        hosted.append(HostedJob(key, agent.name, model, rows, settings, loss_on))
    return [job.key for job in hosted], {job.key: job for job in hosted}, partial(_run, config)


def _weighted(example: Example, loss_on: str) -> list[dict]:
    """The messages as a server learns from them: turns of weight 0 are read only."""
    *earlier, last = example.messages
    if loss_on == "all_turns":
        return [*earlier, last]
    return [*({**m, "weight": 0} if m["role"] == "assistant" else m for m in earlier), last]


def _run(config: Config, jobs: Sequence[HostedJob]) -> Iterator[tuple[int, Path]]:
    """Begins all jobs, and yields (index, checkpoint) as they finish.

    Raises `BackendError` if the server refuses or a job fails.
    """
    import openai

    runs, ids = config.path(config.runs_dir), {}  # ids of jobs that have begun
    runs.mkdir(parents=True, exist_ok=True)
    lock = FileLock(runs / ".openai_jobs.lock")
    left, pause, tries = set(range(len(jobs))), 0.5, 0
    with connect(openai.OpenAI, config.request_timeout, config.max_retries) as client:
        while left:
            for index in sorted(left):
                raise_if_interrupted()
                job = jobs[index]
                what = f"fine-tuning {job.model} for {job.agent}"
                try:
                    if index not in ids:
                        with lock:  # not both of two notebooks
                            ids[index] = _begin(client, job)
                    done = client.fine_tuning.jobs.retrieve(ids[index])
                except Exception as error:
                    if isinstance(error, openai.RateLimitError) and ids.keys() & left:
                        continue  # the server runs only so many jobs at a time
                    passing = isinstance(error, (openai.APIConnectionError, openai.InternalServerError))
                    if passing and index not in ids and tries < config.max_retries:
                        tries += 1  # it may have begun, and is then found
                        continue
                    raise BackendError(f"{what}: {said(error)}") from None  # it holds the key
                if done.status in ("failed", "cancelled"):
                    reason = scrub(str(getattr(done.error, "message", None) or "no reason given"))
                    raise BackendError(f"{what}: {done.id} {done.status}, the server says: {reason}.")
                if done.status == "succeeded":
                    yield index, _keep(client, job, done, runs)
                    left.remove(index)
            time.sleep(pause if left else 0)
            pause = min(30.0, 1.05 * pause)  # polling costs nothing, but a job takes minutes or hours


def _begin(client: Any, job: HostedJob) -> str:
    """The id of a job with this key that the server has and that has not failed, else a new one's."""
    for known in client.fine_tuning.jobs.list(limit=100, metadata={MARK: job.key}):
        alike = (known.metadata or {}).get(MARK) == job.key
        if alike and known.status not in ("failed", "cancelled"):
            return known.id
    lines = "".join(json.dumps(row) + "\n" for row in job.rows)
    file = client.files.create(file=(f"{job.agent}.jsonl", lines.encode()), purpose="fine-tune")
    hyperparameters = {
        "n_epochs": job.settings["num_train_epochs"],
        "batch_size": job.settings["per_device_train_batch_size"],
        "learning_rate_multiplier": job.settings["learning_rate_multiplier"],
    }
    once = client.with_options(max_retries=0)  # asked twice it would make, and charge, two jobs
    return once.fine_tuning.jobs.create(
        model=job.model,
        training_file=file.id,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        seed=job.settings["seed"],
        suffix=job.agent,
        metadata={MARK: job.key},
    ).id


def _keep(client: Any, job: HostedJob, done: Any, runs: Path) -> Path:
    """Stores what a job made, and says so in a line."""
    import openai

    losses: dict[int, float] = {}  # by step
    with suppress(openai.OpenAIError):  # a server may tell none
        for event in client.fine_tuning.jobs.list_events(done.id, limit=100):
            if isinstance(event.data, dict) and "train_loss" in event.data:
                losses[event.data["step"]] = event.data["train_loss"]
    log = {
        "settings": job.settings,
        "loss_on": job.loss_on,
        **dict.fromkeys(("lora_rank", "lora_alpha", "peak_memory")),
        "num_examples": len(job.rows),
        "num_tokens": done.trained_tokens,
        "seconds": (done.finished_at or time.time()) - done.created_at,  # those in the queue, too
        "losses": [losses[step] for step in sorted(losses)],
    }
    named = {"model": done.fine_tuned_model, "job": done.id, "trained_from": job.model}

    def write(folder: Path) -> None:
        for name, values in ((MODEL_FILE, named), (LOG, log)):
            (folder / name).write_text(json.dumps(values, indent=1) + "\n")

    print(f"{job.agent}: {done.id} made {done.fine_tuned_model} in {log['seconds']:.0f} s.")
    return make_checkpoint(runs, job.key, write)
