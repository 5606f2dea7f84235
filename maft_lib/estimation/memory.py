"""How many bytes the phases of a study take on a GPU, or in RAM, and on disk.

Arithmetic on a model's shape and the parameters of finetuning; knows no methods and no time.
"""

from __future__ import annotations

from maft_lib.config import Config
from maft_lib.estimation.shapes import BF16, FP32, ModelShape

STATE_BYTES = {"adamw_torch": 8, "adamw_torch_8bit": 2, "paged_adamw_8bit": 2}  # AdamW's, a parameter
# A logit of a training example, at the peak: itself as computed and as accelerate turns it to fp32, the
# log-softmax and its gradient in fp32. Measured with transformers' loss: 16, in bf16 and in fp32.
LOGIT_BYTES = 16
# NF4 with double quantization: 4 bits, and a constant of about 8 bits for each block of 64.
NF4_BYTES = 0.516
SORTED_LOGIT_BYTES = 40  # what drawing holds of each logit in the transformers backend, in fp64
CONTEXT = 2**30  # CUDA's context and libraries' work space
FRAGMENTS = 1.05  # what PyTorch's allocator loses between blocks
VLLM_WORK = 3 * 2**30  # activations of a full prefill, CUDA graphs
PYTHON = 500 * 2**20  # a worker process on a CPU with PyTorch and transformers in it, measured
CPU_ROWS = 100  # that a worker on a CPU generates together, see `backends.transformers`
GPU_ROWS = 4096
GPU_SHARE = 0.6  # of the free memory that the transformers backend fills with a batch
COMPLETION_BYTES = 300  # of the store for each completion: two hashes and the JSON around its text
TEXT_BYTES = 4  # a token


def dtype_bytes(config: Config) -> int:
    """Bytes of a parameter in inference."""
    return FP32 if config.dtype == "float32" else BF16


def weights(shape: ModelShape, config: Config) -> int:
    """One model in the precision of inference."""
    return shape.num_parameters * dtype_bytes(config)


def trained(shape: ModelShape, config: Config) -> int:
    """Parameters that are finetuned: all, or those of an adapter."""
    return shape.num_parameters if config.lora_rank is None else shape.num_lora(config.lora_rank)


def checkpoint(shape: ModelShape, config: Config) -> int:
    """One finetuned agent on disk, in fp32."""
    return trained(shape, config) * FP32


def shards(config: Config) -> int:
    """Processes that what is trained is cut up among by FSDP2; each has all of an adapter."""
    return config.nproc_per_node if config.lora_rank is None else 1


def optimizer_states(shape: ModelShape, config: Config) -> float:
    """AdamW's two moments on one GPU."""
    return trained(shape, config) * STATE_BYTES[config.optim] / shards(config)


def training_ram(shape: ModelShape, config: Config) -> int:
    """RAM of an agent's training on GPUs: two copies of its weights, the last good ones and those being
    judged; with several processes, which share them, a whole model in each at the beginning."""
    whole = trained(shape, config) * FP32
    return config.nproc_per_node * PYTHON + max(2, config.nproc_per_node) * whole


def sleeping(shape: ModelShape, config: Config) -> int:
    """RAM of a vLLM engine that sleeps while agents are trained."""
    return weights(shape, config) if config.backend == "vllm" else 0


def training(shape: ModelShape, config: Config, longest: int, on_gpu: bool = True) -> int:
    """Peak of training one agent, on each GPU, with an example of `longest` tokens.

    Master weights and states are there all along. The forward pass adds bf16 casts of the weights
    (which autocast keeps until it ends), activations and logits; at the end of the backward pass
    those are gone and all gradients are there. The larger of the two counts. FSDP2 divides what
    belongs to parameters among the processes, and casts no more than two layers at a time.
    """
    num, processes = trained(shape, config), shards(config)
    gradients = num * FP32 / processes
    layer = _layer(shape, config, longest)
    forward = _casts(shape, config) + _kept(shape, config, longest)
    if config.gradient_accumulation_steps > 1:  # those of the batches before are still there
        forward += gradients
    lasting = _base(shape, config) / processes + optimizer_states(shape, config)
    overhead = PYTHON
    if on_gpu:  # a vLLM engine that sleeps keeps its context
        overhead = CONTEXT * (2 if config.backend == "vllm" else 1)
    return round(FRAGMENTS * (lasting + max(forward, gradients + layer)) + overhead)


def _base(shape: ModelShape, config: Config) -> float:
    """fp32 master weights; with adapters the frozen base, in fp32 or NF4, and the adapter."""
    if config.lora_rank is None:
        return shape.num_parameters * FP32
    adapter = trained(shape, config) * FP32
    if not config.load_in_4bit:
        return shape.num_parameters * FP32 + adapter
    rest = shape.num_parameters - shape.num_linear
    return shape.num_linear * NF4_BYTES + rest * BF16 + adapter


def _casts(shape: ModelShape, config: Config) -> float:
    """bf16 copies of the fp32 weights in the forward pass; frozen ones go with their layer's pass."""
    if config.dtype == "float32" or (config.lora_rank is not None and config.load_in_4bit):
        return 0
    frozen = config.lora_rank is not None
    passing = shards(config) > 1 or (frozen and config.gradient_checkpointing)
    share = 2 / shape.num_hidden_layers if passing else 1
    return shape.num_linear * BF16 * min(1, share)


def _rows(config: Config, longest: int) -> int:
    return config.per_device_train_batch_size * longest


def _layer(shape: ModelShape, config: Config, longest: int) -> int:
    """Activations of one layer."""
    return shape.activation_bytes(config.dtype != "float32") * _rows(config, longest)


def _kept(shape: ModelShape, config: Config, longest: int) -> float:
    """Activations that wait for the backward pass, and the logits.

    With checkpointing each layer keeps its fp32 input alone, and one is computed again at a time.
    """
    logits = LOGIT_BYTES * shape.vocab_size * _rows(config, longest)
    layer, layers = _layer(shape, config, longest), shape.num_hidden_layers
    if config.gradient_checkpointing:
        return logits + layer + layers * shape.hidden_size * FP32 * _rows(config, longest)
    return logits + layers * layer


def cache(shape: ModelShape, config: Config, tokens: float) -> float:
    """Keys and values of so many tokens."""
    return shape.cached_values * dtype_bytes(config) * tokens


def row(shape: ModelShape, config: Config, tokens: float) -> float:
    """What a response in progress takes, with all its `tokens`, prompt included."""
    drawn = 0 if config.backend == "vllm" else SORTED_LOGIT_BYTES * shape.vocab_size
    return cache(shape, config, tokens) + drawn


def rows_together(shape: ModelShape, config: Config, tokens: float, gpu: int) -> int:
    """Responses in progress at a time on GPUs of `gpu` bytes, at least one."""
    free = room_for_rows(shape, config, gpu)
    return max(
        1, min(config.max_batch_size or most_rows(config), int(free / row(shape, config, tokens)))
    )


def most_rows(config: Config) -> int:
    """vLLM answers 256 at a time on GPUs below 70 GiB; more on larger ones, which is not counted on."""
    return 256 if config.backend == "vllm" else GPU_ROWS


def room_for_rows(shape: ModelShape, config: Config, gpu: int) -> float:
    """Bytes for responses in progress, on all GPUs that hold the model together."""
    if config.backend == "vllm":
        each = config.gpu_memory_utilization * gpu - VLLM_WORK
        return max(0.0, config.tensor_parallel_size * each - weights(shape, config))
    return GPU_SHARE * max(0.0, gpu - CONTEXT - weights(shape, config))


def generation(shape: ModelShape, config: Config, tokens: float, requests: int, gpu: int) -> int:
    """What generation fills of each GPU: with vLLM the share it is given, whatever it needs."""
    if config.backend == "vllm":
        return round(config.gpu_memory_utilization * gpu)
    num = min(requests, rows_together(shape, config, tokens, gpu))
    return round(CONTEXT + weights(shape, config) + num * row(shape, config, tokens))


def least_generation(shape: ModelShape, config: Config, tokens: float) -> int:
    """What each GPU must have for generation at all: the weights and one response in progress.

    vLLM wants room for a response that fills `max_model_len`, or else the model's window.
    """
    if config.backend != "vllm":
        return round(CONTEXT + weights(shape, config) + row(shape, config, tokens))
    window = config.max_model_len or shape.max_position_embeddings
    needed = weights(shape, config) + cache(shape, config, window)
    return round((needed / config.tensor_parallel_size + VLLM_WORK) / config.gpu_memory_utilization)


def cpu_generation(
    shape: ModelShape, config: Config, tokens: float, requests: int, workers: int
) -> int:
    """RAM of all workers of a CPU, each with its model and a batch."""
    num = min(config.max_batch_size or CPU_ROWS, -(-requests // workers))
    return round(workers * (PYTHON + weights(shape, config) + num * row(shape, config, tokens)))


def agents_in_inference(shape: ModelShape, config: Config, agents: int) -> tuple[int, int, int]:
    """Weights of `agents` finetuned models: one at a time, all at once, as adapters of one base.

    The second is what the authors do (Limitations: 120 to 240 GB). Adapters are in the base's dtype.
    """
    one = weights(shape, config)
    lora = shape.num_lora(config.lora_rank or 16) * dtype_bytes(config)
    return one, agents * one, one + agents * lora


def completions(requests: int, tokens_written: float) -> int:
    """Bytes of the store's database."""
    return round(requests * COMPLETION_BYTES + tokens_written * TEXT_BYTES)
