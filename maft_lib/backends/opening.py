"""Opens the backend that a config names, with the store in front. Knows no debates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maft_lib.arguments import check_config
from maft_lib.backends import Backend
from maft_lib.backends.cached import CachedBackend
from maft_lib.config import Config
from maft_lib.store import Store

if TYPE_CHECKING:
    from maft_lib.cluster import Cluster

# What a backend is opened with: configs that differ in nothing else share one.
_SETTINGS = (
    "backend",
    "base_model",
    "trust_remote_code",
    "runs_dir",
    "device",
    "dtype",
    "num_workers",
    "max_batch_size",
    "executor",
    "ray_address",
    "tensor_parallel_size",
    "gpu_memory_utilization",
    "max_model_len",
    "max_concurrency",
    "max_retries",
    "request_timeout",
)
_opened: dict[tuple, CachedBackend] = {}


def open_backend(config: Config) -> CachedBackend:
    """The config's backend with its store in front; the same one for the same settings."""
    check_config(config)
    key = tuple(getattr(config, name) for name in _SETTINGS)
    if key not in _opened:
        _opened[key] = CachedBackend(bare_backend(config), Store(config.path(config.runs_dir)))
    return _opened[key]


def bare_backend(config: Config) -> Backend:
    """The backend without a store; each imports its libraries when it is opened."""
    check_config(config)
    if config.backend == "openai":
        from maft_lib.backends.openai import OpenAIBackend

        return OpenAIBackend(config.max_concurrency, config.max_retries, config.request_timeout)
    cluster = _cluster(config)
    run = cluster.generate if cluster else None
    if config.backend == "vllm":
        from maft_lib.backends.vllm import VLLMBackend

        return VLLMBackend(
            config.base_model,
            config.dtype,
            config.tensor_parallel_size,
            config.gpu_memory_utilization,
            config.max_model_len,
            config.max_batch_size,
            config.lora_rank,
            run,
            trust_remote_code=config.trust_remote_code,
        )
    from maft_lib.backends.transformers import TransformersBackend

    # A cluster's nodes may have GPUs where this machine has none.
    device, num_workers = (
        (cluster.device, cluster.num_workers) if cluster else (config.device, config.num_workers)
    )
    return TransformersBackend(
        device,
        config.dtype,
        num_workers,
        config.max_batch_size,
        run=run,
        trust_remote_code=config.trust_remote_code,
    )


def _cluster(config: Config) -> Cluster | None:
    """What batches are spread over; None where they run on this machine."""
    if config.executor == "local":
        return None
    from maft_lib.cluster import open_cluster

    return open_cluster(config)
