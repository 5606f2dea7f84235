"""Finetuning by a server's fine-tuning jobs, by OpenAI's protocol (Appendix B.3, GPT-3.5).

A job costs money and hours, so each carries its key: a study that was killed finds it again among the
server's jobs. What it made is a checkpoint of the store: a folder with the new model's name in it, and
what is known of its training.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from tqdm import tqdm

from maft_lib.backends import BackendError
from maft_lib.backends.openai import MODEL_FILE, connect, said, scrub, served_name, server_identity
from maft_lib.config import Config
from maft_lib.events import is_heard
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
    """Checkpoints' keys, jobs by key, and what runs them. `BackendError` for LoRA and preferences."""
    if config.lora_rank is not None:
        raise BackendError("fine-tuning jobs train no adapters: leave lora_rank out.")
    hosted = [_job(agent, examples, config) for agent, examples in jobs]
    return [job.key for job in hosted], {job.key: job for job in hosted}, partial(_run, config)


def _job(agent: Agent, examples: Sequence[Example], config: Config) -> HostedJob:
    if any(example.rejected is not None for example in examples):
        raise BackendError("fine-tuning jobs learn no preferences: leave multiagent_ft_dpo out.")
    critic = agent.role == "critic"
    loss_on = config.critic_loss_on if critic else "final_turn"
    settings = {
        "num_train_epochs": config.critic_num_train_epochs if critic else config.num_train_epochs,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "learning_rate_multiplier": config.learning_rate_multiplier,
        "seed": derive_seed(config.seed, agent.name, "finetune") % 2**31,
    }
    model = served_name(agent.model if config.train_from == "previous" else config.base_model)
    rows = []
    for example in examples:
        messages: list[dict] = [*example.messages]
        if loss_on == "final_turn":  # turns of weight 0 are read, not learned from
            earlier = [{**m, "weight": 0} if m["role"] == "assistant" else m for m in messages[:-1]]
            messages = [*earlier, messages[-1]]
        rows.append({"messages": messages})
    key = content_key(["openai", server_identity(), model, rows, settings])
    return HostedJob(key, agent.name, model, rows, settings, loss_on)


def _run(config: Config, jobs: Sequence[HostedJob]) -> Iterator[tuple[int, Path]]:
    """Begins all jobs, and yields (index, checkpoint) as they finish.

    Raises `BackendError` if the server refuses or a job fails.
    """
    import openai

    runs, hidden = config.path(config.runs_dir), is_heard()
    ids: dict[int, str] = {}  # of jobs that run
    left, pause, tries = set(range(len(jobs))), 0.5, 0
    with (
        connect(openai.OpenAI, config.request_timeout, config.max_retries) as client,
        tqdm(total=len(jobs), desc="fine-tuning jobs", leave=False, disable=hidden) as bar,
    ):
        while left:
            for index in sorted(left):
                raise_if_interrupted()
                job = jobs[index]
                what = f"fine-tuning {job.model} for {job.agent}"
                try:
                    if index not in ids:
                        ids[index] = _begin(client, job, runs)
                    done = client.fine_tuning.jobs.retrieve(ids[index])
                    losses = _losses(client, done.id) if done.status == "succeeded" else []
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
                    yield index, _keep(job, done, losses, runs)
                    left.remove(index)
                    bar.update()
            time.sleep(pause if left else 0)
            pause = min(30.0, 1.05 * pause)  # polling costs nothing, but a job takes minutes or hours


def _begin(client: Any, job: HostedJob, runs: Path) -> str:
    """The id of a job with this key that the server has and that has not failed, else a new one's."""
    import openai

    runs.mkdir(parents=True, exist_ok=True)
    with FileLock(runs / ".openai_jobs.lock"):  # not both of two notebooks
        try:
            for known in client.fine_tuning.jobs.list(limit=100, metadata={MARK: job.key}):
                alike = (known.metadata or {}).get(MARK) == job.key
                if alike and known.status not in ("failed", "cancelled"):
                    return known.id
        except (openai.NotFoundError, openai.BadRequestError, openai.UnprocessableEntityError):
            pass  # a server that lists no jobs
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


def _losses(client: Any, name: str) -> list[float]:
    """The training losses by step; empty where the server tells none."""
    import openai

    try:
        events = list(client.fine_tuning.jobs.list_events(name, limit=100))
    except (openai.NotFoundError, openai.BadRequestError):
        return []
    steps = [event.data for event in events if isinstance(event.data, dict)]
    losses = {step["step"]: step["train_loss"] for step in steps if "train_loss" in step}
    return [losses[step] for step in sorted(losses)]


def _keep(job: HostedJob, done: Any, losses: list[float], runs: Path) -> Path:
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
    named = {"model": done.fine_tuned_model, "job": done.id, "trained_from": job.model}

    def write(folder: Path) -> None:
        for name, values in ((MODEL_FILE, named), (LOG, log)):
            (folder / name).write_text(json.dumps(values, indent=1) + "\n")

    line = f"{job.agent}: {done.id} made {done.fine_tuned_model} in {log['seconds']:.0f} s."
    tqdm.write(line, file=sys.stdout)
    return make_checkpoint(runs, job.key, write)
