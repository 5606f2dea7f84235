"""Which agents learn from what, how, and where their checkpoints are (Sections 2.3 and B.3).

The training itself is in `training`, which the workers import. Knows no debates.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from maft_lib import events
from maft_lib.arguments import check_config, check_each, check_kind
from maft_lib.backends import hub, release_memory
from maft_lib.backends.ray import open_cluster
from maft_lib.config import Config
from maft_lib.seeds import derive_seed
from maft_lib.society import Agent
from maft_lib.store import checkpoints
from maft_lib.store.files import content_key
from maft_lib.training import launching
from maft_lib.training.data import Example
from maft_lib.workers import (
    Claims,
    default_num_workers,
    interruptible,
    raise_if_interrupted,
    run_parallel,
)

_claims = Claims()


def finetune(agent: Agent, examples: Sequence[Example], config: Config) -> Path:
    """Trains one agent on its examples; returns the folder of its new checkpoint.

    An agent without examples keeps its model, with a warning. The checkpoint is found again by
    (model content, examples, hyper-parameters, seed), so nothing is trained twice. Raises
    `FinetuneError` if the training diverges or an example exceeds the context window, `BackendError`
    and `StoreError` as their modules say, and `ValueError` for arguments of another kind.
    """
    check_kind("agent", agent, Agent, ", as a society has them")
    check_each("examples", examples, Example, least=0)
    check_config(config)
    return finetune_all([(agent, examples)], config)[0]


def finetune_all(jobs: Sequence[tuple[Agent, Sequence[Example]]], config: Config) -> list[Path]:
    """`finetune` for several agents, which train side by side where there is room.

    With `backend: openai` the server trains them, as fine-tuning jobs.
    """
    if config.backend == "openai":
        from maft_lib.backends.openai_jobs import finetune_hosted

        return finetune_hosted(jobs, config)
    runs, device = str(config.path(config.runs_dir)), _device(config)
    folders = {place: hub.model_folder(agent.model) for place, (agent, _) in enumerate(jobs)}
    tasks: dict[int, tuple] = {}
    for place, (agent, examples) in enumerate(jobs):
        if examples:
            tasks[place] = (runs, *_task(agent, list(examples), config), device)
        else:
            warnings.warn(
                f"{agent.name} has no example to learn from and keeps its model.", stacklevel=3
            )
    keys = {place: checkpoint_key(*task[1:]) for place, task in tasks.items()}
    longest_first = sorted(tasks, key=lambda place: -sum(map(_length, tasks[place][2])))
    run = _executor(config, device)

    def make(places: list[int]) -> None:
        found = {place: checkpoints.find_checkpoint(Path(runs), keys[place]) for place in places}
        left = [place for place in places if found[place] is None]
        part = [(*tasks[place], keys[place], _report(jobs[place][0], config)) for place in left]
        folders.update({place: folder for place, folder in found.items() if folder is not None})
        for done, folder in run(make_checkpoint, part) if part else ():
            raise_if_interrupted()
            folders[left[done]] = folder
            events.trained()

    with interruptible():
        with _claims.claim(keys.values()) as mine:
            make([place for place in longest_first if keys[place] in mine])
        _claims.wait(keys.values())  # another thread's are in the store by now
        make([place for place in longest_first if keys[place] not in mine])
    for place in tasks:
        _warn_of_divergence(jobs[place][0], folders[place])
    return [folders[place] for place in range(len(jobs))]


def _device(config: Config) -> str:
    if config.executor == "ray":
        return open_cluster(config).device
    return hub.resolve_device(config.device)


def _executor(config: Config, device: str) -> Callable[..., Iterator[tuple[int, Path]]]:
    """Where agents are trained: in workers of a CPU, in processes of their own, or on a cluster."""
    if config.executor == "ray":
        return partial(open_cluster(config).run, num_gpus=config.nproc_per_node)
    if device == "cpu" and config.nproc_per_node == 1:  # a worker is a process already
        return partial(run_parallel, num_workers=config.num_workers or default_num_workers())
    return partial(launching.run_on_gpus, nproc_per_node=config.nproc_per_node, device=device)


def _warn_of_divergence(agent: Agent, folder: Path) -> None:
    if stopped := training_log(folder).get("stopped"):
        warnings.warn(
            f"{agent.name} diverged at step {stopped['step']} of {stopped['num_steps']} and keeps the "
            f"weights of step {stopped['kept_step']}: lower its learning rate.",
            stacklevel=4,
        )


def _task(agent: Agent, examples: list[Example], config: Config) -> tuple[str, list[Example], dict]:
    """Which model learns from what, and how."""
    start = str(hub.model_folder(_start(agent, config)))
    settings = hyper_parameters(agent, config)
    if any(example.rejected is not None for example in examples):
        settings["dpo_beta"] = config.dpo_beta
    return start, examples, settings


def _start(agent: Agent, config: Config) -> str:
    return agent.model if config.train_from == "previous" else config.base_model


def _length(example: Example) -> int:
    return sum(len(message["content"]) for message in example.messages)


def hyper_parameters(agent: Agent, config: Config) -> dict:
    """The settings that the agent's role trains with, in Hugging Face's words."""
    critic = agent.role == "critic"
    return {
        "learning_rate": config.critic_learning_rate if critic else config.learning_rate,
        "num_train_epochs": config.critic_num_train_epochs if critic else config.num_train_epochs,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "weight_decay": config.weight_decay,
        "lr_scheduler_type": config.lr_scheduler_type,
        "max_grad_norm": config.max_grad_norm,
        "bf16": config.dtype == "bfloat16",
        "fp16": config.dtype == "float16",
        "seed": derive_seed(config.seed, agent.name, "finetune") % 2**31,
        "loss_on": config.critic_loss_on if critic else "final_turn",
        **_lora(config),
        **_at_scale(config),
    }


def _lora(config: Config) -> dict:
    """Settings of an adapter, if agents are to be adapters; else nothing, so keys stay the same."""
    if config.lora_rank is None:
        return {}
    return {
        "lora_rank": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "learning_rate": config.lora_learning_rate,
    }


def _at_scale(config: Config) -> dict:
    """Settings of large models where they are not the default, so that other keys stay the same."""
    names = [
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "optim",
        "load_in_4bit",
        "nproc_per_node",
        "trust_remote_code",
    ]
    default = {name: Config.model_fields[name].default for name in names}
    return {name: getattr(config, name) for name in names if getattr(config, name) != default[name]}


def _report(agent: Agent, config: Config) -> dict:
    """Where the training is watched; nothing that its weights depend on."""
    if config.report_to == "none":
        return {}
    folder = config.path(config.runs_dir) / config.report_to
    return {"report_to": config.report_to, "run_name": agent.name, "folder": str(folder)}


def checkpoint_key(start: str, examples: Sequence[Example], settings: dict, device: str) -> str:
    """The store's key of a checkpoint: everything that its weights depend on."""
    messages: list[list] = [list(example.messages) for example in examples]
    if "dpo_beta" in settings:
        messages.append([example.rejected for example in examples])
    return content_key(
        [hub.identity(start, settings.get("trust_remote_code", False)), messages, settings, device]
    )


def make_checkpoint(
    runs_dir: str,
    start: str,
    examples: Sequence[Example],
    settings: dict,
    device: str,
    key: str,
    report: dict | None = None,
    gpus: str | None = None,
) -> Path:
    """Trains `start` into the store and returns the checkpoint's folder. Runs in a worker.

    On a GPU, or with several processes an agent, it only watches over processes that train.
    """
    told = {**settings, "report": report} if report else settings

    def write(new: Path) -> None:
        if device == "cpu" and settings.get("nproc_per_node", 1) == 1:
            # imports PyTorch, which the parent need not wait for
            from maft_lib.training.trainer import train

            train(start, examples, told, device, new)
        else:
            release_memory()
            launching.launch(start, examples, told, device, new, gpus)

    return checkpoints.make_checkpoint(Path(runs_dir), key, write)


def training_log(checkpoint: str | Path) -> dict:
    """What a finetuned checkpoint says of its training: `num_tokens`, `seconds`, `losses` and more.

    Empty for a model that was not finetuned here.
    """
    path = Path(checkpoint) / checkpoints.LOG
    return json.loads(path.read_text()) if path.is_file() else {}
