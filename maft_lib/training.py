"""The training of one agent by the Trainer of Hugging Face. Runs in the workers; knows no debates.

All parameters, or an adapter, are trained by AdamW on fp32 master weights (in pure bf16 a step of 5e-7
would be lost to rounding), with the loss on the assistant's tokens of the turns that `critic_loss_on`
names. What an agent learns from is rendered as inference renders it, and nothing is truncated.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from maft_lib import preferences
from maft_lib.backends import adapters, models
from maft_lib.backends.hub import Tokenizer, load_tokenizer
from maft_lib.finetune_data import Example
from maft_lib.finetuning import FinetuneError
from maft_lib.rendering import IGNORED, Rendered, render_conversation
from maft_lib.store import explained
from maft_lib.workers import busy_seconds

_OWN = ("loss_on", "lora_rank", "lora_alpha", "dpo_beta")  # settings that are not Hugging Face's


def train(start: str, examples: Sequence[Example], settings: dict, device: str, folder: Path) -> None:
    """Trains the model `start` on `examples` into `folder`, with `training.json` beside the weights.

    Raises `FinetuneError` if the loss diverges or an example exceeds the context window.
    """
    if device != "cpu":  # on a CPU they are bounded, and needed again right after
        models.release_models()
    _forget_peak_memory(device)
    began = busy_seconds(device)
    tokenizer = load_tokenizer(start)
    own: dict[str, Any] = {name: settings.get(name) for name in _OWN}
    settings = {name: value for name, value in settings.items() if name not in _OWN}
    set_seed(settings["seed"])  # before the model: an adapter begins with random weights
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
    log["seconds"] = busy_seconds(device) - began
    log["peak_memory"] = _peak_memory(device)
    log["losses"] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    with explained(folder):
        _save(model, start, tokenizer, log, folder)


def _forget_peak_memory(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform.startswith("linux"):
        with suppress(OSError):  # as proc(5) says; elsewhere the peak is that of all the process did
            Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(device: str) -> int:
    """Most bytes in use during the training: of the accelerator, or of this process."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def _trainable(start: str, rank: int | None, alpha: int | None, device: str) -> PreTrainedModel:
    """The model in fp32 with all its parameters to train, or with an adapter."""
    if rank is None:
        return models.load_model(start, "float32", device).train()
    return adapters.with_adapter(start, rank, alpha or rank).to(device).train()


def _rejected(tokenizer: Tokenizer, examples: Sequence[Example]) -> list[Rendered]:
    """The conversations with their rejected last response."""
    return [
        render_conversation(
            tokenizer,
            [*example.messages[:-1], {"role": "assistant", "content": example.rejected or ""}],
        )
        for example in examples
    ]


def _save(model: PreTrainedModel, start: str, tokenizer: Tokenizer, log: dict, folder: Path) -> None:
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
