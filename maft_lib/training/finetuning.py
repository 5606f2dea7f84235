"""Which agents learn from what, how, and where their checkpoints are (Sections 2.3 and B.3)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from maft_lib import events
from maft_lib.backends import hub, release_memory
from maft_lib.backends.ray import open_cluster
from maft_lib.backends.rendering import Template, render_conversation
from maft_lib.config import Config
from maft_lib.seeds import derive_seed
from maft_lib.society import Agent
from maft_lib.store import files
from maft_lib.store.files import content_key
from maft_lib.training import FinetuneError
from maft_lib.training.data import Example
from maft_lib.training.launching import launch, run_on_gpus
from maft_lib.training.openai_jobs import plan_hosted
from maft_lib.workers import Claims, default_num_workers, run_parallel

Run = Callable[[Sequence[tuple]], Iterator[tuple[int, Path]]]  # yields (index of the task, checkpoint)
# Settings of some models; where they are the default they are not in a checkpoint's key.
AT_SCALE = (
    *("gradient_accumulation_steps", "gradient_checkpointing", "optim", "load_in_4bit"),
    *("nproc_per_node", "trust_remote_code", "enable_thinking", "template_date"),
)
_claims = Claims()


def finetune(agent: Agent, examples: Sequence[Example], config: Config) -> Path:
    """Trains one agent on its examples; returns the folder of its new checkpoint.

    An agent without examples keeps its model, with a warning. The checkpoint is found again by
    (model content, examples, hyper-parameters, seed), so nothing is trained twice. Raises
    `FinetuneError` if the training diverges or an example exceeds the context window, `BackendError`
    and `StoreError` as their modules say.
    """
    return finetune_all([(agent, examples)], config)[0]


def finetune_all(jobs: Sequence[tuple[Agent, Sequence[Example]]], config: Config) -> list[Path]:
    """`finetune` for several agents, which train side by side where there is room.

    With `backend: openai` the server trains them, as fine-tuning jobs.
    """
    runs = config.path(config.runs_dir)
    plan = plan_hosted if config.backend == "openai" else _plan
    keys, tasks, run = plan([job for job in jobs if job[1]], config)
    made: dict[str, Path] = {}

    def make(wanted: set[str]) -> None:
        found = {key: files.find_checkpoint(runs, key) for key in tasks if key in wanted}
        made.update({key: folder for key, folder in found.items() if folder})
        left = [key for key in found if key not in made]
        for done, folder in run([tasks[key] for key in left]) if left else ():
            made[left[done]] = folder
            events.trained()

    with _claims.claim(keys) as mine:
        make(mine)
    _claims.wait(keys)  # another thread's are in the store by now
    make(set(keys) - mine)
    folders = [made[keys.pop(0)] if examples else Path(agent.model) for agent, examples in jobs]
    for agent, examples in jobs:
        if not examples:
            message = f"{agent.name} has no example to learn from and keeps its model."
            warnings.warn(message, stacklevel=3)
    return folders


def _plan(
    jobs: Sequence[tuple[Agent, Sequence[Example]]], config: Config
) -> tuple[list[str], dict[str, tuple], Run]:
    """Checkpoints' keys; `make_checkpoint`'s arguments by key, the longest first; who runs it on them:
    workers of a CPU, processes of their own on GPUs, or a cluster."""
    cluster = open_cluster(config) if config.executor == "ray" else None
    device = cluster.device if cluster else hub.resolve_device(config.device)
    runs, keys, tasks = config.path(config.runs_dir), [], {}
    for agent, examples in jobs:
        start = agent.model if config.train_from == "previous" else config.base_model
        settings = hyper_parameters(agent, config)
        folder = str(hub.model_folder(start))
        keys.append(checkpoint_key(folder, examples, settings, device))
        settings["agent"] = agent.name  # neither this nor the next is what weights depend on
        if config.report_to != "none":
            report = {"report_to": config.report_to, "run_name": agent.name}
            settings["report"] = {**report, "folder": str(runs / config.report_to)}
        tasks[keys[-1]] = (str(runs), folder, list(examples), settings, device, keys[-1])

    def length(key: str) -> int:
        return sum(len(message["content"]) for example in tasks[key][2] for message in example.messages)

    longest_first = {key: tasks[key] for key in sorted(tasks, key=length, reverse=True)}
    if cluster:
        run: Callable = partial(cluster.run, num_gpus=config.nproc_per_node)
    elif device == "cpu" and config.nproc_per_node == 1:  # a worker is a process already
        run = partial(run_parallel, num_workers=config.num_workers or default_num_workers())
    else:
        run = partial(run_on_gpus, nproc_per_node=config.nproc_per_node, device=device)
    return keys, longest_first, partial(run, make_checkpoint)


SAMPLE = tuple(
    {"role": role, "content": content}
    for role, content in (
        *(("user", "What is 1+2?"), ("assistant", "It is \\boxed{4}.")),
        *(("user", "Others say 3. What is 1+2?"), ("assistant", "It is \\boxed{3}.")),
    )
)


def check_trainable(config: Config) -> None:
    """Raises `FinetuneError` for a base model that cannot be trained, as far as its files show it.

    What a generation agent and a critic would learn from is rendered by its own chat template.
    """
    if config.backend == "openai":  # the server's own matter
        return
    folder = hub.model_folder(config.base_model)
    quantized = json.loads((folder / "config.json").read_text()).get("quantization_config")
    if quantized and config.lora_rank is None:
        raise FinetuneError(
            f"model {folder} is quantized ({quantized.get('quant_method')}), so not all its parameters "
            "can be trained: set lora_rank, or name the model in full precision."
        )
    template = Template(config.enable_thinking, config.template_date)
    tokenizer = hub.load_tokenizer(config.base_model, True, config.trust_remote_code, template)
    try:
        for messages, loss_on in ((SAMPLE[:2], "final_turn"), (SAMPLE, config.critic_loss_on)):
            render_conversation(tokenizer, messages, loss_on)
    except ValueError as error:
        raise FinetuneError(f"model {folder} cannot be trained: {error}.") from error


def hyper_parameters(agent: Agent, config: Config) -> dict:
    """The settings that the agent's role trains with, in Hugging Face's words.

    Those of adapters and of large models are there where they are not the default.
    """
    critic = agent.role == "critic"
    settings = {
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
    }
    if config.lora_rank is not None:
        settings |= {"lora_rank": config.lora_rank, "lora_alpha": config.lora_alpha}
        settings["learning_rate"] = config.lora_learning_rate
    for name in AT_SCALE:
        if (value := getattr(config, name)) != Config.model_fields[name].default:
            settings[name] = value
    return settings


def checkpoint_key(start: str, examples: Sequence[Example], settings: dict, device: str) -> str:
    """The store's key of a checkpoint: everything that its weights depend on."""
    content = hub.identity(start, settings.get("trust_remote_code", False))
    messages = [list(example.messages) for example in examples]
    return content_key([content, messages, settings, device])


def make_checkpoint(
    runs_dir: str,
    start: str,
    examples: Sequence[Example],
    settings: dict,
    device: str,
    key: str,
    gpus: str | None = None,
) -> Path:
    """Trains `start` into the store and returns the checkpoint's folder. Runs in a worker.

    On a GPU, or with several processes an agent, it only watches over processes that train.
    """

    def write(new: Path) -> None:
        if device == "cpu" and settings.get("nproc_per_node", 1) == 1:
            # imports PyTorch, which the parent need not wait for
            from maft_lib.training.trainer import train

            train(start, examples, settings, device, new)
        else:
            release_memory()
            launch(start, examples, settings, device, new, gpus)

    return files.make_checkpoint(Path(runs_dir), key, write)


def training_log(checkpoint: str | Path) -> dict:
    """What a finetuned checkpoint says of its training: `num_tokens`, `seconds`, `losses` and more.

    Empty for a model that was not finetuned here.
    """
    path = Path(checkpoint) / files.LOG
    return json.loads(path.read_text()) if path.is_file() else {}
