"""The training of one agent by the Trainer of Hugging Face. Runs in the workers.

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
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.errors import record
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from maft_lib.backends import models
from maft_lib.backends.hub import load_tokenizer
from maft_lib.backends.rendering import IGNORED, USUAL, Template, render_conversation
from maft_lib.provenance import made_with
from maft_lib.store.files import LOG, explained
from maft_lib.training import FinetuneError
from maft_lib.training.data import Example
from maft_lib.workers import busy_seconds

# Settings that are not Hugging Face's, in the order of the log.
LOGGED = ("loss_on", "lora_rank", "lora_alpha", "load_in_4bit", "nproc_per_node")
Row = dict[str, list[int]]  # `input_ids` and `labels` of a rendered conversation


def train(start: str, examples: Sequence[Example], settings: dict, device: str, folder: Path) -> None:
    """Trains the model `start` on `examples` into `folder`, with `training.json` beside the weights.

    Raises `FinetuneError` if the training diverges or an example exceeds the context window.
    """
    if device != "cpu":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # of several processes each its own
    elif sys.platform.startswith("linux"):
        with suppress(OSError):  # forgets the peak memory of what was done before, see proc(5)
            Path("/proc/self/clear_refs").write_text("5")
    began = busy_seconds(device)
    names = (*LOGGED, "agent", "report", "trust_remote_code", "enable_thinking", "template_date")
    own: dict[str, Any] = {name: settings.get(name) for name in names}
    settings = {name: value for name, value in settings.items() if name not in own}
    template = Template(own["enable_thinking"], own["template_date"] or USUAL.date)
    tokenizer = load_tokenizer(start, True, bool(own["trust_remote_code"]), template)
    set_seed(settings["seed"])  # before the model: an adapter begins with random weights
    model = _trainable(start, own, device)

    window = models.context_window(model) or math.inf

    def row(example: Example) -> Row:
        what = f"{own['agent'] or start}: the example of problem {example.problem_id}"
        try:
            made = render_conversation(tokenizer, example.messages, own["loss_on"])
        except ValueError as error:
            raise FinetuneError(f"{what} cannot be trained on: {error}.") from error
        if len(made.input_ids) > window:
            raise FinetuneError(
                f"{what} of {len(made.input_ids)} tokens does not fit the model's {window} and is not "
                "truncated: lower max_tokens, num_rounds or num_agents."
            )
        return made._asdict()

    rows, guard = list(map(row, examples)), DivergenceGuard(own["agent"] or start)
    arguments = _arguments(own, settings, device, folder)
    collate = partial(_collate, tokenizer.pad_token_id)
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(guard)
    trainer.train()
    canary = models.canary_nll(trainer.model, tokenizer)
    if not math.isfinite(canary):  # the last step has broken the weights
        raise guard.error(arguments.max_steps)
    unit = 1 if sys.platform == "darwin" else 1024
    on_cpu = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    num_tokens = sum(len(row["input_ids"]) for row in rows)
    log = {
        "settings": settings,
        **{name: own[name] for name in LOGGED},
        "num_examples": len(rows),
        "num_tokens": settings["num_train_epochs"] * num_tokens,
        "effective_batch_size": trainer.get_total_train_batch_size(arguments),
        "seconds": busy_seconds(device) - began,
        # bytes, of this process or of the GPU
        "peak_memory": on_cpu if device == "cpu" else torch.cuda.max_memory_allocated(),
        "losses": guard.losses,
        "made_with": made_with(),
        **({"canary": canary} if own["lora_rank"] is None else {}),
    }
    # gathered from the shards of all processes
    weights = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        with explained(folder):
            if own["lora_rank"] is not None:
                models.save_adapter(model, start, folder)
            else:  # in fp32: the next iteration goes on from the master weights
                model.save_pretrained(folder, state_dict=weights)
            tokenizer.save_pretrained(folder)
            (folder / LOG).write_text(json.dumps(log, indent=1) + "\n")


def _trainable(start: str, own: dict, device: str) -> PreTrainedModel:
    """The model in fp32 with all its parameters to train, or with an adapter.

    What several processes share stays on the CPU until it is cut into their shards.
    """
    place, trust = "cpu" if own["nproc_per_node"] else device, bool(own["trust_remote_code"])
    if own["lora_rank"] is None:
        return models.load_model(start, "float32", place, trust)
    four, rank = bool(own["load_in_4bit"]), own["lora_rank"]
    model = models.with_adapter(start, rank, own["lora_alpha"] or rank, four, trust)
    return model if four else model.to(place)


def _arguments(own: dict, settings: dict, device: str, folder: Path) -> TrainingArguments:
    """The settings in Hugging Face's words; several processes share all that is trained by FSDP2.

    Adapters are small: there every process has all of them (DDP).
    """
    if own["nproc_per_node"] and own["lora_rank"] is None:
        sharding = {
            "version": 2,
            "reshard_after_forward": True,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "activation_checkpointing": settings.get("gradient_checkpointing", False),
        }
        how = settings | {"gradient_checkpointing": False, "fsdp": True, "fsdp_config": sharding}
    else:
        how = settings | {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
    if report := own["report"]:
        name = f"{Path(report['run_name']).name}-{time.strftime('%Y%m%d-%H%M%S')}"
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(Path(report["folder"]) / name)
        os.environ["WANDB_DIR"] = report["folder"]
        how |= {"run_name": report["run_name"]}
    return TrainingArguments(
        output_dir=str(folder),
        use_cpu=device == "cpu",
        data_seed=settings["seed"],
        train_sampling_strategy="group_by_length",
        save_strategy="no",
        report_to=report["report_to"] if report else "none",
        logging_steps=1,
        logging_nan_inf_filter=False,  # the guard wants to see them
        disable_tqdm=True,
        dataloader_pin_memory=device != "cpu",
        remove_unused_columns=False,
        **how,
    )


def _collate(pad_token_id: int, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Pads a batch on the right, where a causal model never looks: an attention mask is not needed."""
    return {
        name: torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=padding
        )
        for name, padding in (("input_ids", pad_token_id), ("labels", IGNORED))
    }


class DivergenceGuard(TrainerCallback):
    """Keeps the losses of a training, and ends one that diverges with a `FinetuneError`."""

    WINDOW = 5  # steps that a loss is averaged over: single examples vary much
    TOO_HIGH = 2.0  # nats above the loss of the first steps: much worse than without any training

    def __init__(self, agent: str):
        self.agent, self.losses = agent, list[float]()

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Judges the loss of the step just done."""
        if "loss" not in (logs or {}):
            return
        self.losses.append(float(logs["loss"]))
        recent, first = self.losses[-self.WINDOW :], self.losses[: self.WINDOW]
        mean, start = sum(recent) / len(recent), sum(first) / len(first)
        if not math.isfinite(mean) or mean > start + self.TOO_HIGH:
            raise self.error(state.max_steps)

    def error(self, num_steps: int) -> FinetuneError:
        """What is said of a training that has diverged."""
        return FinetuneError(
            f"{self.agent} diverged at step {len(self.losses)} of {num_steps} (loss "
            f"{self.losses[-1]}): lower learning_rate or critic_learning_rate."
        )


@record
def main() -> None:
    """Trains what the job file says; `record` hands errors to the process that has launched this."""
    job = Path(sys.argv[1]).read_text(encoding="utf-8")
    start, examples, settings, device, folder = json.loads(job)
    rows = [Example(**{**row, "messages": tuple(row["messages"])}) for row in examples]
    train(start, rows, settings, device, Path(folder))


logging.getLogger("transformers.trainer").setLevel(logging.ERROR)

if __name__ == "__main__":
    main()
