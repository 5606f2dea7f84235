"""LoRA adapters (Hu et al., 2021) by peft: agents that share one base model's weights.

A checkpoint with an adapter is an ordinary folder that holds the adapter alone and names its base,
relative to itself. For inference the adapter is merged into a copy of the base. Knows no training.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from maft_lib.store import ADAPTER, BASE, model_identity


def is_adapter(folder: str | Path) -> bool:
    """Whether a checkpoint holds an adapter instead of a whole model."""
    return (Path(folder) / ADAPTER).is_file()


def base_folder(folder: str | Path) -> Path:
    """The base model of an adapter. Raises `OSError` if it is gone, `ValueError` if it is another."""
    named = json.loads((Path(folder) / BASE).read_text())
    base = (Path(folder) / named["folder"]).resolve()
    if model_identity(base) != named["identity"]:
        raise ValueError(f"the adapter {folder} belongs to another model than {base} now holds")
    return base


def load_merged(folder: str | Path, dtype: torch.dtype) -> Any:
    """The base model with the adapter merged into its weights."""
    from peft import PeftModel

    return PeftModel.from_pretrained(_base(folder, dtype), str(folder)).merge_and_unload()


def with_adapter(start: str | Path, rank: int, alpha: int) -> Any:
    """The model to train: an adapter checkpoint goes on, any other model gets a new adapter.

    Every linear layer is adapted, the base is frozen.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    if is_adapter(start):
        return PeftModel.from_pretrained(_base(start, torch.float32), str(start), is_trainable=True)
    base = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, use_safetensors=True)
    adapter = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(base, adapter)


def save_adapter(model: Any, start: str | Path, folder: Path) -> None:
    """Writes the adapter alone, with the base's config and where the base is."""
    base = base_folder(start) if is_adapter(start) else Path(start).resolve()
    model.save_pretrained(folder)
    model.get_base_model().config.save_pretrained(folder)
    # A checkpoint is written beside its final place, so the relative path holds after the move.
    named = {"folder": os.path.relpath(base, folder), "identity": model_identity(base)}
    (folder / BASE).write_text(json.dumps(named) + "\n")
    settings = json.loads((folder / ADAPTER).read_text())
    settings["base_model_name_or_path"] = None  # no path of this machine in what gives the identity
    (folder / ADAPTER).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")


def _base(folder: str | Path, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(base_folder(folder), dtype=dtype, use_safetensors=True)
