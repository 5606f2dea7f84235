"""One fine-tuning job and the calls about it: find, create, poll, read its losses.

A job costs money and hours, so its id is on disk as soon as the server has given it, and before one is
created it is looked for on the server; so is one whose file is damaged. Knows neither agents nor the
store.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from maft_lib.backends import BackendError
from maft_lib.backends.openai_client import Trouble, pause, scrub, server_identity, trouble
from maft_lib.store.files import StoreWarning, content_key, explained, replacing

T = TypeVar("T")
MARK = "maft_lib"  # the job's metadata under which its key is


@dataclass
class Job:
    """What one agent is to learn, from which model; and the server's id of it, once there is one.

    `rows` are the lines of the training file, `settings` are in Hugging Face's words.
    """

    agent: str
    model: str
    rows: list[dict]
    settings: dict
    loss_on: str
    id: str | None = None
    tries: int = 0

    @property
    def key(self) -> str:
        """The store's key of the checkpoint: everything that the new model depends on."""
        return content_key(["openai", server_identity(), self.model, self.rows, self.settings])

    @property
    def name(self) -> str:
        """The job in a message."""
        return f"fine-tuning {self.model} for {self.agent}" + (f", job {self.id}" if self.id else "")


def begin(job: Job, folder: Path, client: Any) -> Trouble | None:
    """Gives the job its id, from `folder` or the server, or creates it; returns what stood in the way.

    One whose answer was lost on the way is among the server's jobs, and is paid for. The lock keeps two
    notebooks from both creating it.
    """
    from filelock import FileLock

    record = folder / f"{job.key}.json"
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(record.with_suffix(".lock")):
        if (known := _recorded(record)) is not None:
            job.id = known
            return None
        try:
            job.id = _find(client, job) or _create(client, job)
        except Exception as error:  # also of the HTTP client; its traceback would hold the key
            return trouble(error, job.name)
        values = {"job": job.id, "agent": job.agent, "model": job.model}
        checksum = content_key([job.key, values])
        with replacing(record) as new:
            new.write_text(json.dumps({**values, "checksum": checksum}) + "\n", encoding="utf-8")
    return None


def _recorded(record: Path) -> str | None:
    """The id in a job's file, if there is one; of a damaged one it warns."""
    with explained(record):
        if not record.exists():
            return None
        known = read_job(record)
    if known is not None:
        return known
    warnings.warn(
        f"{record} is damaged: its fine-tuning job is looked for on the server, and begun anew if the "
        "server does not have it.",
        StoreWarning,
        stacklevel=5,
    )
    return None


def read_job(record: Path) -> str | None:
    """The id in a job's file; None if that is damaged. Older ones have no checksum."""
    data = record.read_bytes()
    try:
        values = json.loads(data)
        checksum = values.pop("checksum", None)
        if checksum in (None, content_key([record.stem, values])) and isinstance(values["job"], str):
            return values["job"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return None


def _find(client: Any, job: Job) -> str | None:
    """The id of a job with this key that the server has and that has not failed."""
    import openai

    try:
        page = client.fine_tuning.jobs.list(limit=100, metadata={MARK: job.key})
    except (openai.NotFoundError, openai.BadRequestError, openai.UnprocessableEntityError):
        return None  # a server that lists no jobs
    for other in page.data:
        alike = (other.metadata or {}).get(MARK) == job.key
        if alike and other.status not in ("failed", "cancelled"):
            return other.id
    return None


def _create(client: Any, job: Job) -> str:
    lines = "".join(json.dumps(row) + "\n" for row in job.rows)
    file = client.files.create(file=(f"{job.agent}.jsonl", lines.encode()), purpose="fine-tune")
    settings = job.settings
    hyperparameters = {
        "n_epochs": settings["num_train_epochs"],
        "batch_size": settings["per_device_train_batch_size"],
        "learning_rate_multiplier": settings["learning_rate_multiplier"],
    }
    once = client.with_options(max_retries=0)  # asked twice it would make, and charge, two jobs
    return once.fine_tuning.jobs.create(
        model=job.model,
        training_file=file.id,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        seed=settings["seed"],
        suffix=job.agent,
        metadata={MARK: job.key},
    ).id


def poll(job: Job, folder: Path, client: Any, max_retries: int) -> Any:
    """The finished job as the server has it, or None.

    Raises `BackendError` for one that has failed or was cancelled, and forgets its id.
    """
    found = _asked(lambda: _retrieve(client, job), job, max_retries)
    if found.status == "succeeded" and found.fine_tuned_model:
        return found
    if found.status not in ("failed", "cancelled", "succeeded"):
        return None
    (folder / f"{job.key}.json").unlink(missing_ok=True)
    how = "made no model" if found.status == "succeeded" else found.status
    reason = scrub(str(getattr(found.error, "message", None) or "no reason given"))
    raise BackendError(
        f"{job.name}: {how} (the server says: {reason}); mend what it names and run again: a new "
        "job begins for this agent alone."
    )


def _retrieve(client: Any, job: Job) -> Any:
    found = client.fine_tuning.jobs.retrieve(job.id)
    if not isinstance(found.status, str):
        raise ValueError("a job without a status")
    return found


def losses(job: Job, client: Any, max_retries: int) -> list[float]:
    """Training losses by step from the job's events; empty if the server reports none."""
    return _asked(lambda: _losses(client, job), job, max_retries)


def _losses(client: Any, job: Job) -> list[float]:
    import openai

    try:
        events = list(islice(client.fine_tuning.jobs.list_events(job.id, limit=100), 100_000))
    except (openai.NotFoundError, openai.BadRequestError):
        return []  # a server without events
    steps = [event.data for event in events if isinstance(event.data, dict)]
    found = {
        step["step"]: step["train_loss"] for step in steps if {"step", "train_loss"} <= step.keys()
    }
    return [found[step] for step in sorted(found)]


def _asked(call: Callable[[], T], job: Job, max_retries: int) -> T:
    """`call()`, repeated while the server's answer makes no sense; the SDK repeats what has none."""
    for retry in range(max_retries + 1):
        try:
            return call()
        except (ValueError, AttributeError, TypeError) as error:
            problem, again = trouble(error, job.name).sentence, True
        except Exception as error:
            problem, again = trouble(error, job.name).sentence, False
        if not again:
            break
        time.sleep(pause(retry))
    raise BackendError(problem)  # not where it was caught: the error's traceback would hold the key
