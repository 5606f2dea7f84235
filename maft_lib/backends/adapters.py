"""LoRA adapters (Hu et al., 2021) by peft: agents that share one base model's weights.

A checkpoint with an adapter is an ordinary folder that holds the adapter alone and names its base,
relative to itself. For inference the adapter is merged into a copy of the base. Knows no training.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from maft_lib.backends import BackendError, hub
from maft_lib.checkpoints import ADAPTER, BASE, model_identity

WEIGHTS = "adapter_model.safetensors"


def is_adapter(folder: str | Path) -> bool:
    """Whether a checkpoint holds an adapter instead of a whole model."""
    return (Path(folder) / ADAPTER).is_file()


def rank(folder: str | Path) -> int:
    """The rank of a checkpoint's adapter."""
    return int(json.loads((Path(folder) / ADAPTER).read_text())["r"])


def base_folder(folder: str | Path) -> Path:
    """The base model of an adapter. Raises `BackendError` if it is gone, another, or not named."""
    try:
        named = json.loads((Path(folder) / BASE).read_text(encoding="utf-8"))
        identity, on_hub = named["identity"], named.get("name")  # the name of an exported adapter's
        place = on_hub or str((Path(folder) / named["folder"]).resolve())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackendError(
            f"the adapter {folder} does not say whose it is, its {BASE} is missing or damaged: "
            f"{hub.AGAIN}."
        ) from error
    if not on_hub and not os.path.isdir(place):
        raise BackendError(f"the adapter {folder} needs its base model, which is not at {place}.")
    base = hub.model_folder(place)
    if hub.identity(place) != identity:
        raise BackendError(
            f"the adapter {folder} belongs to another model than {base} now holds: put that one back, "
            "or train the adapter again."
        )
    return base


def check_weights(folder: Path) -> None:
    """Raises `BackendError` for a model or an adapter without weights as safetensors."""
    if not list(folder.glob(WEIGHTS if is_adapter(folder) else "*.safetensors")):
        raise BackendError(
            f"model {folder} has no .safetensors file; other formats can run code when they are "
            "loaded and are refused."
        )


def check_safe(folder: Path, trust: bool) -> None:
    """Raises `BackendError` for a model that could run code: its own, unless trusted, or a pickle's."""
    hub.check_code(folder, trust)
    check_weights(folder)


def load_merged(folder: str | Path, **how: Any) -> Any:
    """The base model with the adapter merged into its weights. Raises as `load_whole` does."""
    from peft import PeftModel

    check_safe(Path(folder), how["trust_remote_code"])
    base = load_whole(base_folder(folder), **how)
    with warnings.catch_warnings():  # weights that it lacks would be drawn at random
        warnings.filterwarnings("error", message=".*missing adapter keys")
        return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()


def with_adapter(
    start: str | Path, rank: int, alpha: int, in_4bit: bool = False, trust: bool = False
) -> Any:
    """The model to train: an adapter checkpoint goes on, any other model gets a new adapter.

    Every linear layer is adapted, the base is frozen, with `in_4bit` in NF4 (QLoRA, Dettmers et al.,
    2023). The adapter itself is trained in fp32.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    how: dict[str, Any] = _four_bits() if in_4bit else {"dtype": torch.float32}
    how["trust_remote_code"] = trust
    if is_adapter(start):
        check_weights(Path(start))  # peft would take pickled ones
        base = load_whole(base_folder(start), **how)
        model = PeftModel.from_pretrained(base, str(start), is_trainable=True)
    else:
        adapter = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(load_whole(start, **how), adapter)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def _four_bits() -> dict[str, Any]:
    import torch
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"dtype": torch.bfloat16, "quantization_config": quantization}


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


def load_whole(folder: str | Path, **how: Any) -> Any:
    """A model that is no adapter. Raises `BackendError` for code of its own that is not to be run, for
    weights that are no safetensors, and for those that are not what its config says."""
    from transformers import AutoModelForCausalLM

    check_safe(Path(folder), how["trust_remote_code"])
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # they are refused below, with their names
        output_loading_info=True,
        **how,
    )
    model, found = loaded
    hub.refuse_partial(folder, model, found)
    return model
