"""The training of one agent by the Trainer of Hugging Face. Runs in the workers; knows no debates.

All parameters, or an adapter, are trained by AdamW on fp32 master weights (in pure bf16 a step of 5e-7
would be lost to rounding), with the loss on the assistant's tokens of the turns that `critic_loss_on`
names. What an agent learns from is rendered as inference renders it, and nothing is truncated. As a
program, started by `launching`, it trains what a job file says, alone or as one of several processes.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from maft_lib.backends import BackendError, models
from maft_lib.backends.hub import Tokenizer, load_tokenizer
from maft_lib.backends.rendering import IGNORED, Rendered, render_conversation
from maft_lib.provenance import made_with
from maft_lib.store.checkpoints import LOG
from maft_lib.store.files import StoreError, explained
from maft_lib.training import FinetuneError, preferences
from maft_lib.training.data import Example
from maft_lib.training.divergence import DivergenceGuard
from maft_lib.training.launching import ERROR
from maft_lib.workers import busy_seconds

# Settings that are not Hugging Face's.
_OWN = (
    *("loss_on", "lora_rank", "lora_alpha", "dpo_beta", "load_in_4bit", "nproc_per_node", "report"),
    "trust_remote_code",
)


def train(start: str, examples: Sequence[Example], settings: dict, device: str, folder: Path) -> None:
    """Trains the model `start` on `examples` into `folder`, with `training.json` beside the weights.

    A training that diverges ends with its last good weights, and `training.json` says so. Raises
    `FinetuneError` if there are none yet or an example exceeds the context window.
    """
    if device != "cpu":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # of several processes each its own
        models.release_models()  # on a CPU they are bounded, and needed again right after
    _forget_peak_memory(device)
    began = busy_seconds(device)
    own: dict[str, Any] = {name: settings.get(name) for name in _OWN}
    trust = bool(own.pop("trust_remote_code"))
    tokenizer = load_tokenizer(start, trust=trust)
    settings = {name: value for name, value in settings.items() if name not in _OWN}
    set_seed(settings["seed"])  # before the model: an adapter begins with random weights
    model = _trainable(start, own, device, trust)
    rows = [render_conversation(tokenizer, example.messages, own["loss_on"]) for example in examples]
    rejected = [] if own["dpo_beta"] is None else _rejected(tokenizer, examples)
    if rejected and own["nproc_per_node"]:
        raise FinetuneError("preferences are trained in one process: set nproc_per_node to 1.")
    _check_lengths([*rows, *rejected], model)
    trainer = _trainer(model, rows, rejected, own, settings, device, tokenizer.pad_token_id, folder)
    guard = DivergenceGuard()
    trainer.add_callback(guard)
    trainer.train()
    _check_divergence(guard, start, model)
    report = own.pop("report") or {}
    log = {"settings": settings, **own, "num_examples": len(rows)}
    num_tokens = sum(len(row.input_ids) for row in [*rows, *rejected])
    log["num_tokens"] = settings["num_train_epochs"] * num_tokens
    log["effective_batch_size"] = _effective_batch_size(trainer.args)
    log["seconds"] = busy_seconds(device) - began
    log["peak_memory"] = _peak_memory(device)
    log["losses"] = guard.losses
    log["made_with"] = made_with()
    if guard.stopped:
        log["stopped"] = guard.stopped
    if own["lora_rank"] is None:
        log["canary"] = models.canary_nll(trainer.model, tokenizer)
    with explained(folder):
        _save(trainer, start, tokenizer, log, folder)
        if trainer.is_world_process_zero():
            _save_events(report, folder)


def _check_divergence(guard: DivergenceGuard, start: str, model: torch.nn.Module) -> None:
    stopped = guard.stopped
    if (stopped and not stopped["kept_step"]) or not all(
        _local(p).isfinite().all() for p in model.parameters() if p.is_floating_point()
    ):
        loss, step = (stopped["loss"], stopped["step"]) if stopped else (guard.losses[-1], "the last")
        raise FinetuneError(
            f"finetuning {start} diverged (loss {loss} at step {step}) before anything good could be "
            "kept: lower learning_rate or critic_learning_rate."
        )


def _local(parameter: torch.Tensor) -> torch.Tensor:
    """A parameter's values, of a sharded one those of this process."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def _effective_batch_size(arguments: TrainingArguments) -> int:
    """Examples a step, over all processes."""
    return (
        arguments.per_device_train_batch_size
        * arguments.gradient_accumulation_steps
        * arguments.world_size
    )


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


def _trainable(start: str, own: dict, device: str, trust: bool) -> PreTrainedModel:
    """The model in fp32 with all its parameters to train, or with an adapter.

    What several processes share stays on the CPU until it is cut into their shards.
    """
    place = "cpu" if own["nproc_per_node"] else device
    if own["lora_rank"] is None:
        return models.load_model(start, "float32", place, trust).train()
    four, rank = bool(own["load_in_4bit"]), own["lora_rank"]
    model = models.with_adapter(start, rank, own["lora_alpha"] or rank, four, trust)
    return (model if four else model.to(place)).train()


def _rejected(tokenizer: Tokenizer, examples: Sequence[Example]) -> list[Rendered]:
    """The conversations with their rejected last response."""
    return [
        render_conversation(
            tokenizer,
            [*example.messages[:-1], {"role": "assistant", "content": example.rejected or ""}],
        )
        for example in examples
    ]


def _save(trainer: Trainer, start: str, tokenizer: Tokenizer, log: dict, folder: Path) -> None:
    """Writes the checkpoint, from the first process; weights that are in shards are gathered first."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    shards = trainer.is_fsdp_enabled
    weights = trainer.accelerator.get_state_dict(trainer.model) if shards else None
    if not trainer.is_world_process_zero():
        return
    if log["lora_rank"] is not None:
        models.save_adapter(model, start, folder)
    else:  # in fp32: the next iteration goes on from the master weights
        model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
    (folder / LOG).write_text(json.dumps(log, indent=1) + "\n")


def _trainer(
    model: PreTrainedModel,
    rows: Sequence[Rendered],
    rejected: Sequence[Rendered],
    own: dict,
    settings: dict,
    device: str,
    pad_token_id: int,
    folder: Path,
) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=device == "cpu",
        data_seed=settings["seed"],
        train_sampling_strategy="random" if rejected else "group_by_length",
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,  # the guard wants to see them
        disable_tqdm=True,
        dataloader_pin_memory=device != "cpu",
        remove_unused_columns=False,
        **_reporting(own["report"], folder),
        **_memory(own, settings),
    )
    collate = _Collator(pad_token_id)
    trainer: Trainer | preferences.PreferenceTrainer
    if rejected:
        pairs = preferences.rows_of(list(zip(rows, rejected)), model.eval(), collate)
        trainer = preferences.PreferenceTrainer(
            model.train(), arguments, train_dataset=pairs, data_collator=preferences.collator(collate)
        )
        trainer.beta = own["dpo_beta"] or trainer.beta
    else:
        data = [{"input_ids": row.input_ids, "labels": row.labels} for row in rows]
        trainer = Trainer(model, arguments, train_dataset=data, data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _memory(own: dict, settings: dict) -> dict[str, Any]:
    """The settings in Hugging Face's words; several processes share all that is trained by FSDP2.

    Adapters are small: there every process has all of them (DDP).
    """
    settings = dict(settings)
    checkpointing = settings.pop("gradient_checkpointing", False)
    if own["nproc_per_node"] and own["lora_rank"] is None:
        shards = {
            "version": 2,
            "reshard_after_forward": True,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "activation_checkpointing": checkpointing,
        }
        return {**settings, "fsdp": True, "fsdp_config": shards}
    if checkpointing:
        settings["gradient_checkpointing"] = True
        settings["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    return settings


def _reporting(report: dict | None, folder: Path) -> dict[str, Any]:
    """What Hugging Face needs to report; TensorBoard's events are moved when the name is known."""
    if not report:
        return {"report_to": "none"}
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "events")
    os.environ["WANDB_DIR"] = report["folder"]
    return {"report_to": report["report_to"], "run_name": report["run_name"]}


def _save_events(report: dict, folder: Path) -> None:
    """TensorBoard's files go beside the store: a checkpoint holds only what its weights came from."""
    events = folder / "events"
    if events.is_dir():
        name = Path(report["run_name"]).name  # an agent may be called ../../x
        place = Path(report["folder"]) / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(events, place)


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


def main(job: Path) -> int:
    """Trains what the job file says; a failure that the user can mend is written beside it."""
    start, examples, settings, device, folder = json.loads(job.read_text(encoding="utf-8"))
    rows = [Example(**{**row, "messages": tuple(row["messages"])}) for row in examples]
    try:
        train(start, rows, settings, device, Path(folder))
    except (FinetuneError, BackendError, StoreError) as error:
        said = json.dumps([type(error).__name__, str(error)])
        (job.parent / ERROR).write_text(said, encoding="utf-8")
        return 1
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


logging.getLogger("transformers.trainer").setLevel(logging.ERROR)

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
