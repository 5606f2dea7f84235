"""Loads the weights of Hugging Face models and of LoRA adapters of them, safetensors only.

An adapter's checkpoint holds the adapter alone (Hu et al., 2021) and names its base; for inference it
is merged into a copy of the base.
"""

from __future__ import annotations

import gc
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import logging as hf_logging

from maft_lib.backends import BackendError, hub, memory_holders, release_memory, rendering
from maft_lib.backends.rendering import render_prompt, tokenize
from maft_lib.store.files import ADAPTER, BASE, LOG, model_identity

hf_logging.disable_progress_bar()  # the bars of loading weights would drown what a study prints

KEPT = 2**31  # bytes of models in one CPU worker: all agents of a study if they are small
_LOADED: dict[hub.Model, PreTrainedModel] = {}


def cached_model(model: hub.Model) -> PreTrainedModel:
    """`load_model`, kept in memory; a changed folder has another identity and is read anew.

    A GPU keeps one model at a time, a CPU worker the last that were used, up to `KEPT` bytes.
    """
    if model not in _LOADED:
        if model.device != "cpu":
            release_memory()
        loaded = load_model(model.folder, model.dtype, model.device, model.trust)
        # how tokens are drawn is a request's matter, not that of the model's files
        loaded.generation_config = GenerationConfig(eos_token_id=declared_stops(loaded) or None)
        _LOADED[model] = loaded
    loaded = _LOADED[model] = _LOADED.pop(model)  # now the last used
    while len(_LOADED) > 1 and sum(m.get_memory_footprint() for m in _LOADED.values()) > KEPT:
        del _LOADED[next(iter(_LOADED))]
    return loaded


def declared_stops(model: PreTrainedModel) -> list[int]:
    """The tokens that end a text by the model's generation config."""
    eos = getattr(model.generation_config, "eos_token_id", None)
    return eos if isinstance(eos, list) else [] if eos is None else [eos]


def release_models() -> None:
    """Frees the memory of all models kept, for instance before one is trained."""
    _LOADED.clear()
    gc.collect()  # a trainer and its model refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


memory_holders.append(release_models)


def load_model(name_or_path: str, dtype: str, device: str, trust: bool = False) -> PreTrainedModel:
    """The model in `dtype` on `device`, ready for inference; with `trust` its own code is run."""
    folder = hub.model_folder(name_or_path)
    hub.check_weights(folder)
    how = {"dtype": getattr(torch, dtype), "trust_remote_code": trust}
    with hub.loading(f"model {folder}"), warnings.catch_warnings():
        if hub.is_adapter(folder):
            from peft import PeftModel

            warnings.filterwarnings("error", message=".*missing adapter keys")  # they would be random
            base = load_whole(hub.base_folder(folder), **how)
            model = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
        else:
            model = load_whole(folder, **how)
        if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
            model.set_attn_implementation("eager")  # faster ones would not cap (Gemma-2)
    for name, weights in model.named_parameters():
        if weights.is_floating_point() and not weights.isfinite().all():
            raise BackendError(f"model {folder} has NaN or inf in {name}: copy or download it again.")
    return model.to(device).eval()


def context_window(model: PreTrainedModel) -> int | None:
    """Tokens that a model can read and write in one text; None where it has no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def check_text(model: PreTrainedModel, tokenizer: hub.Tokenizer, ids: list[int], new: int = 0) -> None:
    """`rendering.check_text` by what the model has."""
    embeddings: Any = model.get_input_embeddings()
    rendering.check_text(tokenizer, ids, context_window(model), embeddings.weight.shape[0], new)


def load_whole(folder: str | Path, kind: Any = AutoModelForCausalLM, **how: Any) -> Any:
    """A model that is no adapter, loaded as `kind`. Raises `BackendError` for weights that are no
    safetensors or not what its config says: transformers would draw missing ones at random."""
    hub.check_weights(folder)
    how |= {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    with hub.loading(f"model {folder}"):
        loaded = kind.from_pretrained(folder, **how)
        for what in ("mismatched", "missing"):
            for name in sorted(map(str, loaded[1][f"{what}_keys"])):
                if "pooler" not in name:  # of an encoder, which is not used
                    raise ValueError(f"its config.json asks for weights that are {what}: {name}, ...")
    return loaded[0]


def with_adapter(
    start: str | Path, rank: int, alpha: int, in_4bit: bool = False, trust: bool = False
) -> Any:
    """The model to train: an adapter checkpoint goes on, any other model gets a new adapter.

    Every linear layer is adapted, the base is frozen, with `in_4bit` in NF4 (QLoRA, Dettmers et al.,
    2023). The adapter itself is trained in fp32.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    hub.check_weights(start)  # peft would take pickled ones
    how: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": trust}
    if in_4bit:
        nested: Any = {"bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.bfloat16}
        four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **nested)
        how |= {"dtype": torch.bfloat16, "quantization_config": four}
    if hub.is_adapter(start):
        base = load_whole(hub.base_folder(start), **how)
        model: Any = PeftModel.from_pretrained(base, str(start), is_trainable=True)
    else:
        kind: Any = {"target_modules": "all-linear", "task_type": "CAUSAL_LM", "lora_dropout": 0.0}
        model = get_peft_model(load_whole(start, **how), LoraConfig(r=rank, lora_alpha=alpha, **kind))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def save_adapter(model: Any, start: str | Path, folder: Path) -> None:
    """Writes the adapter alone, with the base's config and where the base is."""
    base = hub.base_folder(start) if hub.is_adapter(start) else Path(start).resolve()
    model.save_pretrained(folder)
    model.get_base_model().config.save_pretrained(folder)
    # A checkpoint is written beside its final place, so the relative path holds after the move.
    named = {"folder": os.path.relpath(base, folder), "identity": model_identity(base)}
    (folder / BASE).write_text(json.dumps(named) + "\n")
    settings = json.loads((folder / ADAPTER).read_text())
    settings["base_model_name_or_path"] = None  # no path of this machine in what gives the identity
    (folder / ADAPTER).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")


# --- the canary: a fixed text whose likelihood tells whether an engine holds a model's weights ------

QUESTION = "What is the result of 3+4*5+2-1*6?"
ANSWER = "4*5 = 20 and 1*6 = 6. 3+20+2-6 = 19. The answer is \\boxed{19}."
# Mean nats a token by which two engines may differ by rounding; other weights are off by tenths.
TOLERANCE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.05}


def canary_ids(tokenizer: hub.Tokenizer) -> list[int]:
    """Token ids of the fixed question and answer, by the model's own chat template."""
    prompt = render_prompt(tokenizer, [{"role": "user", "content": QUESTION}])
    return [*prompt, *tokenize(tokenizer, ANSWER)]


def canary_nll(model: Any, tokenizer: hub.Tokenizer) -> float:
    """Mean negative log-likelihood of the canary in nats a token, by a transformers model in fp32."""
    ids = torch.tensor([canary_ids(tokenizer)], device=model.device)
    training = model.training
    with torch.inference_mode():
        loss = model.eval()(input_ids=ids, labels=ids, use_cache=False).loss
    model.train(training)
    return float(loss)


def expected_canary(folder: str | Path) -> float | None:
    """What the trainer measured under a checkpoint's weights; None for a model not finetuned here."""
    path = Path(folder) / LOG
    return json.loads(path.read_text()).get("canary") if path.is_file() else None
