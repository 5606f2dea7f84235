"""How a vLLM engine is started: its settings, and vLLM's arguments for them. Knows no weights."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from maft_lib.backends import BackendError

MAX_LORAS = 8  # adapters in one batch; more wait for a slot
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM can reserve
# Of the free memory, for keys and values on a CPU; the rest is for the weights and other processes.
CPU_CACHE_SHARE = 0.2


class Settings(NamedTuple):
    """How an engine is started; `base` is the folder of its first weights."""

    base: str
    dtype: str
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    trust_remote_code: bool = False


def arguments(settings: Settings, lora_rank: int) -> dict[str, Any]:
    """What `vllm.LLM` is given beside the model; with `lora_rank` there is room for such adapters.

    Raises `BackendError` for a model whose attention heads vLLM does not know on this machine.
    """
    chosen: dict[str, Any] = {
        "dtype": settings.dtype,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "max_model_len": settings.max_model_len,
        "trust_remote_code": settings.trust_remote_code,
        "load_format": "safetensors",  # of others vLLM would take pickles, too
        "worker_extension_cls": "maft_lib.backends.vllm_worker.WeightSwap",
        "disable_log_stats": True,
        "seed": 0,
    }
    if settings.max_num_seqs:
        chosen["max_num_seqs"] = settings.max_num_seqs
    if lora_rank:
        fitting = next((rank for rank in LORA_RANKS if rank >= lora_rank), lora_rank)
        chosen |= {"enable_lora": True, "max_loras": MAX_LORAS, "max_lora_rank": fitting}
    if not on_cpu():
        return chosen | {"enable_sleep_mode": True}
    _check_heads(settings.base)
    # A prompt read in parts has its seed's generator rewound, which vLLM 0.32 cannot do on a CPU.
    whole_prompts = {"enable_chunked_prefill": False}
    return chosen | whole_prompts | {"enforce_eager": True, "kv_cache_memory_bytes": _cpu_cache_bytes()}


def on_cpu() -> bool:
    """Whether the vLLM that is installed computes on a CPU."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that are started here inherit the mask: Ctrl-C is for this process, not for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_heads(folder: str) -> None:
    """On a CPU vLLM's attention knows heads of 32 dimensions and more, and dies of others later."""
    width = json.loads((Path(folder) / "config.json").read_text()).get("head_dim") or 64
    if width < 32:
        raise BackendError(
            f"vLLM on a CPU knows no attention heads of {width} dimensions: for the miniature model "
            "run `python benchmarks/wide_heads.py FOLDER` and name that folder."
        )


def _cpu_cache_bytes() -> int:
    import psutil

    return int(CPU_CACHE_SHARE * psutil.virtual_memory().available)
