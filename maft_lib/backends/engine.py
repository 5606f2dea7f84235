"""One vLLM engine for all agents of a base model: swaps weights, keeps adapters side by side, sleeps.

A finetuned agent's weights are read into the engine that runs already, so it starts once for a whole
study; agents that are LoRA adapters are answered in one batch. Knows no requests and no debates.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

from maft_lib.backends import BackendError, Completion, Sampling, memory_holders, models, release_memory
from maft_lib.backends.engine_start import Settings, arguments, on_cpu, without_interrupts
from maft_lib.backends.hub import Model, adapter_rank, identity, load_tokenizer
from maft_lib.backends.rendering import stop_ids, tokenize
from maft_lib.wording import one_line
from maft_lib.workers import busy_seconds


class Row(NamedTuple):
    """A request as the engine sees it: rendered prompt, seed, and the folder of an adapter."""

    prompt: str
    seed: int
    adapter: str | None = None


class Engine:
    """A running vLLM engine. `num_starts` and `num_swaps` count what it cost.

    Raises `BackendError` if vLLM is missing, cannot start, or holds other weights than it was given.
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
        self._lock = threading.RLock()  # one thread's swap must not meet another's requests

    def generate(
        self, weights: Model, rows: Sequence[Row], drawn: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        """Yields (index of the row, completion) as they finish; all rows of one model's weights.

        Rows with and without an adapter are not mixed: vLLM 0.32 on a CPU applies a batch's only
        adapter to its other rows, too.
        """
        with self._lock, self._alive():
            self._hold(weights, [row.adapter for row in rows if row.adapter])
            for part in (True, False):
                places = [i for i, row in enumerate(rows) if bool(row.adapter) is part]
                for place, completion in self._run([rows[i] for i in places], drawn):
                    yield places[place], completion

    def sleep(self) -> None:
        """Frees the GPU for training or scoring; on a CPU there is memory for both."""
        with self._lock:
            if self._llm is None or self._asleep or on_cpu():
                return
            try:
                self._llm.sleep(level=1)  # weights go to the CPU's memory, the cache is dropped
                self._asleep = True
            except _dead_engine():
                self.stop()

    def stop(self) -> None:
        """Ends the engine's processes; the next request starts it again."""
        with self._lock:
            llm, self._llm, self.holds, self._asleep = self._llm, None, "", False
            self._adapters.clear()
            if llm is not None:
                llm.llm_engine.engine_core.shutdown()

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Says in one sentence that the engine's processes died; the next call starts new ones."""
        try:
            yield
        except Exception as error:
            if self._llm is None or not isinstance(error, _dead_engine()):
                raise
            self.stop()
            raise BackendError(
                f"vLLM's engine died ({one_line(error)}): run again, what is finished is kept; if it "
                "happens again, lower gpu_memory_utilization or max_batch_size."
            ) from error

    def _hold(self, weights: Model, adapter_folders: Sequence[str]) -> None:
        """Starts the engine if need be, and sees that it holds `weights`."""
        rank = max((adapter_rank(folder) for folder in adapter_folders), default=0)
        if rank > self.lora_rank:
            self.stop()  # it was started without room for such adapters
            self.lora_rank = rank
        if self._llm is None:
            self._start()
        elif self._asleep:
            self._make_room()
            self._llm.wake_up()
            self._asleep = False
        if self.holds != weights.identity:
            self._swap(weights)

    def _start(self) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        # A process that has threads, or has asked for its GPUs, cannot be forked safely.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        try:
            from vllm import LLM
        except ImportError as error:
            raise BackendError(
                f"backend is vllm, but vLLM cannot be imported here ({one_line(error)}): it needs an "
                'environment of its own, pip install -e ".[vllm]".'
            ) from error
        chosen = arguments(self.settings, self.lora_rank)
        self._make_room()
        try:
            with without_interrupts():
                self._llm = LLM(self.settings.base, **chosen)
        except (RuntimeError, ValueError, OSError) as error:
            raise BackendError(
                f"vLLM cannot start with {self.settings.base}: {one_line(error)} Try another "
                "gpu_memory_utilization, max_model_len or tensor_parallel_size."
            ) from error
        self.num_starts += 1
        content = identity(self.settings.base, self.settings.trust_remote_code)
        self._check(self.settings.base, content)
        self.holds = content

    def _make_room(self) -> None:
        """What else this process has on the GPU leaves it: models that score, other engines."""
        release_memory()
        for other in _ENGINES.values():
            if other is not self:
                other.stop()

    def _swap(self, weights: Model) -> None:
        held, self.holds = self.holds, ""  # an interrupted swap leaves nothing to be trusted
        sums = self._llm.collective_rpc("swap_weights", args=(weights.folder,))
        if held and any(before == after for before, after in sums):
            warnings.warn(
                f"the weights of {weights.folder} are, in {self.settings.dtype}, those that the engine "
                "held before: its training moved none, so try a larger learning rate.",
                stacklevel=2,
            )
        if self._llm.reset_prefix_cache() is False:
            self.stop()
            raise BackendError("vLLM kept keys and values of other weights: run again.")
        self.num_swaps += 1
        self._check(weights.folder, weights.identity)
        self.holds = weights.identity

    def _check(self, folder: str, identity: str) -> None:
        """The canary: the likelihood of a fixed text must be that of the weights just given.

        With room for adapters vLLM on a CPU dies of such a question, so there it is not asked.
        """
        if self.lora_rank and on_cpu():
            return
        found = self.canary(folder)
        wanted = models.expected_canary(folder)
        wanted = self._canaries.setdefault(identity, found) if wanted is None else wanted
        if not abs(found - wanted) <= models.TOLERANCE[self.settings.dtype]:
            self.stop()
            raise BackendError(
                f"vLLM does not hold the weights of {folder}: a fixed text has {found:.4f} nats a "
                f"token there instead of {wanted:.4f}; use backend: transformers."
            )

    def canary(self, folder: str) -> float:
        """Mean negative log-likelihood of the fixed text in nats a token, as the engine sees it."""
        from vllm import SamplingParams, TokensPrompt

        ids = models.canary_ids(load_tokenizer(folder, trust=self.settings.trust_remote_code))
        asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
        (output,) = self._llm.generate([TokensPrompt(prompt_token_ids=ids)], asked, use_tqdm=False)
        scores = [place[token].logprob for place, token in zip(output.prompt_logprobs[1:], ids[1:])]
        return -sum(scores) / len(scores)

    def _run(self, rows: Sequence[Row], drawn: Sampling) -> Iterator[tuple[int, Completion]]:
        """Lets the engine answer all rows at once; it batches them itself, continuously."""
        engine = self._llm.llm_engine
        places = {str(next(self._ids)): place for place in range(len(rows))}
        last = busy_seconds("cuda")
        try:
            for name, place in places.items():
                self._add(name, rows[place], drawn)
            while engine.has_unfinished_requests():
                done = [output for output in engine.step() if output.finished]
                now = busy_seconds("cuda")
                for output in done:
                    if output.request_id not in places:
                        continue  # of a stream that was left: its abort comes with the next step
                    place = places.pop(output.request_id)
                    yield place, self._completion(output, (now - last) / len(done))
                last = now if done else last
        finally:
            if places and self._llm is not None:  # interrupted: nothing goes on without a reader
                engine.abort_request(list(places))

    def _add(self, name: str, row: Row, drawn: Sampling) -> None:
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        tokenizer = load_tokenizer(self.settings.base, trust=self.settings.trust_remote_code)
        ids = tokenize(tokenizer, row.prompt)
        parameters = SamplingParams(
            temperature=drawn.temperature,
            top_p=drawn.top_p,
            max_tokens=min(drawn.max_tokens, self._room(len(ids))),
            seed=row.seed,
            stop_token_ids=sorted(stop_ids(tokenizer)),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt = TokensPrompt(prompt_token_ids=ids)
        self._llm.llm_engine.add_request(name, prompt, parameters, lora_request=self._lora(row.adapter))

    def _room(self, num_tokens: int) -> int:
        window = self._llm.llm_engine.model_config.max_model_len
        if num_tokens >= window:
            raise BackendError(
                f"a prompt of {num_tokens} tokens does not fit max_model_len {window}: raise it, lower "
                "num_agents or num_rounds, or keep summarize on."
            )
        return window - num_tokens

    def _lora(self, folder: str | None) -> Any:
        if folder is None:
            return None
        from vllm.lora.request import LoRARequest

        number = self._adapters.setdefault(folder, len(self._adapters) + 1)
        return LoRARequest(f"adapter-{number}", number, folder)

    def _completion(self, output: Any, seconds: float) -> Completion:
        (answer,) = output.outputs
        tokenizer = load_tokenizer(self.settings.base, trust=self.settings.trust_remote_code)
        text = str(tokenizer.decode(list(answer.token_ids), skip_special_tokens=True))
        read, written = len(output.prompt_token_ids), len(answer.token_ids)
        return Completion(text, read, written, str(answer.finish_reason), seconds)


_ENGINES: dict[tuple, Engine] = {}


def open_engine(settings: Settings, lora_rank: int | None = None) -> Engine:
    """The engine for these settings; the same one in the same process. It starts when it is asked.

    With `lora_rank` it starts with room for adapters, else again when the first of them comes.
    """
    engine = _ENGINES.setdefault(settings, Engine(settings))
    if not engine.num_starts:
        engine.lora_rank = max(engine.lora_rank, lora_rank or 0)
    return engine


def sleep_engines() -> None:
    """Frees the GPU of all engines of this process, before something else needs it."""
    for engine in _ENGINES.values():
        engine.sleep()


memory_holders.append(sleep_engines)


def _dead_engine() -> type[Exception]:
    from vllm.v1.engine.exceptions import EngineDeadError

    return EngineDeadError
