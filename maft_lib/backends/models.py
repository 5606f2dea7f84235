"""Loads the weights of Hugging Face models, safetensors only. Runs in the workers; knows no requests.

Whatever is wrong is said in one sentence as a `BackendError`.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as hf_logging

from maft_lib.backends import BackendError, adapters, attention
from maft_lib.backends.hub import AGAIN, model_folder
from maft_lib.wording import one_line


def load_model(name_or_path: str, dtype: str, device: str, trust: bool = False) -> PreTrainedModel:
    """The model in `dtype` on `device`, ready for inference; with `trust` its own code is run."""
    folder = model_folder(name_or_path)
    load = adapters.load_merged if adapters.is_adapter(folder) else adapters.load_whole
    try:
        model = load(folder, dtype=getattr(torch, dtype), trust_remote_code=trust)
        model.set_attn_implementation(_attention(model))
    except BackendError:  # which says it all
        raise
    except Exception as error:  # damaged weights surface as many kinds of errors
        raise BackendError(f"model {folder} cannot be loaded ({one_line(error)}): {AGAIN}.") from error
    model.to(device)
    _check_numbers(model, folder)
    return model.eval()


def _attention(model: PreTrainedModel) -> str:
    """Plain attention for models that cap its logits (Gemma-2), since the faster ones leave that out.

    Where heads share keys and values, `attention` reads these once; else as transformers decides.
    """
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None):
        return "eager"
    chosen: str = model.config._attn_implementation
    shared = getattr(config, "num_key_value_heads", None) not in (None, config.num_attention_heads)
    return attention.GROUPED if shared and chosen == "sdpa" else chosen


def _check_numbers(model: PreTrainedModel, folder: Path) -> None:
    """Raises `BackendError` for weights that are no numbers: such a model would write at random."""
    for name, weights in model.named_parameters():
        if weights.is_floating_point() and not weights.isfinite().all():
            raise BackendError(f"model {folder} has no numbers but NaN or inf in {name}: {AGAIN}.")


KEPT = 2**31  # bytes of models in one CPU worker: all agents of a study if they are small
_LOADED: dict[tuple[str, str, str, str, bool], PreTrainedModel] = {}


def cached_model(
    folder: str, content: str, dtype: str, device: str, trust: bool = False
) -> PreTrainedModel:
    """`load_model`, kept in memory; `content` is its identity, so a changed folder is read anew.

    A GPU keeps one model at a time, a CPU worker the last that were used, up to `KEPT` bytes.
    """
    key = (folder, content, dtype, device, trust)
    if key in _LOADED:
        _LOADED[key] = _LOADED.pop(key)  # now the last used
        return _LOADED[key]
    if device != "cpu":
        release_models()
        let_engines_sleep()
    _LOADED[key] = load_model(folder, dtype, device, trust)
    while len(_LOADED) > 1 and sum(m.get_memory_footprint() for m in _LOADED.values()) > KEPT:
        del _LOADED[next(iter(_LOADED))]
    return _LOADED[key]


def let_engines_sleep() -> None:
    """vLLM takes nearly all of a GPU: while a model is here, it must not."""
    if "maft_lib.backends.engine" in sys.modules:
        sys.modules["maft_lib.backends.engine"].sleep_engines()


def release_models() -> None:
    """Frees the memory of all models kept, for instance before one is trained."""
    _LOADED.clear()
    gc.collect()  # a trainer and its model refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


hf_logging.disable_progress_bar()  # the bars of loading weights would drown those of a study
