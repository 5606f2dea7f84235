"""Loads Hugging Face models and tokenizers, from folders or the hub, safetensors only.

Whatever is missing is said in one sentence as a `BackendError`. Knows nothing of requests.
"""

from __future__ import annotations

import gc
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import logging as hf_logging

from maft_lib.backends import BackendError, adapters
from maft_lib.store import MODEL_FILES, model_identity


@lru_cache(maxsize=32)
def model_folder(name_or_path: str) -> Path:
    """The local folder of a model; one named on the Hugging Face hub is fetched."""
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BackendError(f"{folder} is no model directory: it has no config.json.")
        return folder
    if folder.is_absolute() or name_or_path.startswith(".") or name_or_path.count("/") != 1:
        raise BackendError(
            f"model {name_or_path!r} does not exist: give a model directory or a name on the "
            "Hugging Face hub as model_name_or_path."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name_or_path, allow_patterns=[*MODEL_FILES, "*.json"]))
    except Exception as error:  # the hub client raises many kinds; all mean the same here
        raise BackendError(
            f"model {name_or_path!r} is no directory here and cannot be fetched from the hub "
            f"({type(error).__name__}): check the name, the network and your hub token."
        ) from error


def identity(name_or_path: str) -> str:
    """The model's content hash; see `store.model_identity`."""
    return model_identity(model_folder(name_or_path))


@lru_cache(maxsize=32)
def load_tokenizer(name_or_path: str) -> Tokenizer:
    """The tokenizer of a model, with a pad token. Raises `BackendError` without a chat template."""
    folder = model_folder(name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendError(f"the tokenizer of {folder} cannot be loaded: {_line(error)}") from error
    if not tokenizer.chat_template:
        raise BackendError(
            f"model {folder} has no chat template, so it cannot debate: use an instruction-tuned "
            "model, or set `chat_template` in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


def load_model(name_or_path: str, dtype: str, device: str) -> PreTrainedModel:
    """The model in `dtype` on `device`, ready for inference."""
    folder = model_folder(name_or_path)
    if not list(folder.glob("*.safetensors")):
        raise BackendError(
            f"model {folder} has no .safetensors file; other formats can run code when they are "
            "loaded and are refused."
        )
    try:
        if adapters.is_adapter(folder):
            model = adapters.load_merged(folder, getattr(torch, dtype))
        else:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True
            )
    except Exception as error:  # damaged weights surface as many kinds of errors
        raise BackendError(f"model {folder} cannot be loaded: {_line(error)}") from error
    model.to(device)
    return model.eval()


_LOADED: dict[tuple[str, str, str, str], PreTrainedModel] = {}


def cached_model(folder: str, content: str, dtype: str, device: str) -> PreTrainedModel:
    """`load_model`, kept in memory; `content` is its identity, so a changed folder is read anew.

    A GPU keeps one model at a time, a CPU worker up to eight.
    """
    key = (folder, content, dtype, device)
    if key not in _LOADED:
        if device != "cpu" or len(_LOADED) >= 8:
            release_models()
        _LOADED[key] = load_model(folder, dtype, device)
    return _LOADED[key]


def release_models() -> None:
    """Frees the memory of all models kept, for instance before one is trained."""
    _LOADED.clear()
    gc.collect()  # a trainer and its model refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def resolve_device(device: str) -> str:
    """`auto` is cuda where there is one, else cpu. Raises `BackendError` for a missing cuda."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError("device is cuda, but PyTorch finds none here: use device: auto or cpu.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


hf_logging.disable_progress_bar()  # the bars of loading weights would drown those of a study
