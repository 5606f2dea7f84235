"""Supervised finetuning of one agent (Section 2.3, Appendix B.3). Knows no debates.

All parameters are trained by AdamW on fp32 master weights (in pure bf16 a step of 5e-7 would be lost
to rounding), with the loss on the assistant's tokens of the turns that `critic_loss_on` names. What an
agent learns from is rendered as inference renders it, and nothing is truncated.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from maft_lib import preferences
from maft_lib.backends import adapters, models
from maft_lib.config import Config
from maft_lib.debate import Agent
from maft_lib.finetune_data import Example
from maft_lib.rendering import IGNORED, Rendered, render_conversation
from maft_lib.seeds import derive_seed
from maft_lib.store import Store, content_key, explained
from maft_lib.workers import default_num_workers, run_parallel


class FinetuneError(RuntimeError):
    """Finetuning an agent failed; the message says which and why."""


def finetune(agent: Agent, examples: Sequence[Example], config: Config) -> Path:
    """Trains one agent on its examples; returns the folder of its new checkpoint.

    An agent without examples keeps its model, with a warning. The checkpoint is found again by
    (model content, examples, hyper-parameters, seed), so nothing is trained twice. Raises
    `FinetuneError` if the training diverges or an example exceeds the context window, `BackendError`
    and `StoreError` as their modules say.
    """
    return finetune_all([(agent, examples)], config)[0]


def finetune_all(jobs: Sequence[tuple[Agent, Sequence[Example]]], config: Config) -> list[Path]:
    """`finetune` for several agents, which train side by side on a CPU."""
    runs, device = str(config.path(config.runs_dir)), models.resolve_device(config.device)
    tasks, places = [], []
    for place, (agent, examples) in enumerate(jobs):
        if examples:
            start = str(models.model_folder(_start(agent, config)))
            settings = hyper_parameters(agent, config)
            if any(example.rejected is not None for example in examples):
                settings["dpo_beta"] = config.dpo_beta
            tasks.append((runs, start, list(examples), settings, device))
            places.append(place)
        else:
            warnings.warn(
                f"{agent.name} has no example to learn from and keeps its model.", stacklevel=3
            )
    num_workers = (config.num_workers or default_num_workers()) if device == "cpu" else 0
    folders = {i: Path(models.model_folder(agent.model)) for i, (agent, _) in enumerate(jobs)}
    order = sorted(range(len(tasks)), key=lambda t: -sum(map(_length, tasks[t][2])))
    for done, folder in run_parallel(make_checkpoint, [tasks[t] for t in order], num_workers):
        folders[places[order[done]]] = folder
    return [folders[i] for i in range(len(jobs))]


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


def make_checkpoint(
    runs_dir: str, start: str, examples: Sequence[Example], settings: dict, device: str
) -> Path:
    """Trains `start` into the store and returns the checkpoint's folder. Runs in a worker."""
    messages: list[list] = [list(example.messages) for example in examples]
    if "dpo_beta" in settings:
        messages.append([example.rejected for example in examples])
    key = content_key([models.identity(start), messages, settings, device])
    store = Store(runs_dir)
    try:
        return store.make_checkpoint(key, lambda new: _train(start, examples, settings, device, new))
    finally:
        store.close()


def _train(start: str, examples: Sequence[Example], settings: dict, device: str, folder: Path) -> None:
    models.release_models()
    began = time.perf_counter()
    tokenizer = models.load_tokenizer(start)
    own: dict[str, Any] = {name: settings.get(name) for name in _OWN}
    settings = {name: value for name, value in settings.items() if name not in _OWN}
    model = _trainable(start, own["lora_rank"], own["lora_alpha"], device)
    rows = [render_conversation(tokenizer, example.messages, own["loss_on"]) for example in examples]
    rejected = [] if own["dpo_beta"] is None else _rejected(tokenizer, examples)
    _check_lengths([*rows, *rejected], model)
    collate = _Collator(tokenizer.pad_token_id)
    trainer = _trainer(model, rows, rejected, own["dpo_beta"], settings, device, collate, folder)
    loss = trainer.train().training_loss
    if not math.isfinite(loss) or not all(p.isfinite().all() for p in model.parameters()):
        raise FinetuneError(
            f"finetuning {start} diverged (loss {loss}): lower learning_rate or critic_learning_rate."
        )
    log = {"settings": settings, **own, "num_examples": len(rows)}
    num_tokens = sum(len(row.input_ids) for row in [*rows, *rejected])
    log["num_tokens"] = settings["num_train_epochs"] * num_tokens
    log["seconds"] = time.perf_counter() - began
    log["peak_memory"] = _peak_memory(device)
    log["losses"] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    with explained(folder):
        _save(model, start, tokenizer, log, folder)


def _peak_memory(device: str) -> int:
    """Most bytes in use so far: of the accelerator, or of this process."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def training_log(checkpoint: str | Path) -> dict:
    """What a finetuned checkpoint says of its training: `num_tokens`, `seconds`, `losses` and more.

    Empty for a model that was not finetuned here.
    """
    path = Path(checkpoint) / "training.json"
    return json.loads(path.read_text()) if path.is_file() else {}


_OWN = ("loss_on", "lora_rank", "lora_alpha", "dpo_beta")  # settings that are not Hugging Face's


def _trainable(start: str, rank: int | None, alpha: int | None, device: str) -> PreTrainedModel:
    """The model in fp32 with all its parameters to train, or with an adapter."""
    if rank is None:
        return models.load_model(start, "float32", device).train()
    return adapters.with_adapter(start, rank, alpha or rank).to(device).train()


def _rejected(tokenizer: models.Tokenizer, examples: Sequence[Example]) -> list[Rendered]:
    """The conversations with their rejected last response."""
    return [
        render_conversation(
            tokenizer,
            [*example.messages[:-1], {"role": "assistant", "content": example.rejected or ""}],
        )
        for example in examples
    ]


def _save(
    model: PreTrainedModel, start: str, tokenizer: models.Tokenizer, log: dict, folder: Path
) -> None:
    if log["lora_rank"] is not None:
        adapters.save_adapter(model, start, folder)
    else:
        model.save_pretrained(folder)  # in fp32: the next iteration goes on from the master weights
    tokenizer.save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps(log, indent=1) + "\n")


def _trainer(
    model: PreTrainedModel,
    rows: Sequence[Rendered],
    rejected: Sequence[Rendered],
    beta: float | None,
    settings: dict,
    device: str,
    collate: _Collator,
    folder: Path,
) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=device == "cpu",
        data_seed=settings["seed"],
        train_sampling_strategy="random" if rejected else "group_by_length",
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device != "cpu",
        remove_unused_columns=False,
        **settings,
    )
    trainer: Trainer | preferences.PreferenceTrainer
    if rejected:
        pairs = preferences.rows_of(list(zip(rows, rejected)), model.eval(), collate)
        trainer = preferences.PreferenceTrainer(
            model.train(), arguments, train_dataset=pairs, data_collator=preferences.collator(collate)
        )
        trainer.beta = beta or trainer.beta
    else:
        data = [{"input_ids": row.input_ids, "labels": row.labels} for row in rows]
        trainer = Trainer(model, arguments, train_dataset=data, data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    return trainer


class _Collator:
    """Pads a batch on the right; padded labels are ignored.

    A causal model never looks to the right, so no attention mask is needed, and without one PyTorch
    takes its faster path.
    """

    def __init__(self, pad_token_id: int):
        self.padding = {"input_ids": pad_token_id, "labels": IGNORED}

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        return {
            name: torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=value
            )
            for name, value in self.padding.items()
        }


def _check_lengths(rows: Sequence[Rendered], model: PreTrainedModel) -> None:
    window = getattr(model.config, "max_position_embeddings", None) or math.inf
    longest = max(len(row.input_ids) for row in rows)
    if longest > window:
        raise FinetuneError(
            f"a training example of {longest} tokens does not fit the model's {window} and is not "
            "truncated: lower max_tokens, num_rounds or num_agents."
        )


logging.getLogger("transformers.trainer").setLevel(logging.ERROR)
