"""Decodes a batch of rows with one model, in a worker or where one listens. Knows no requests.

Written here rather than left to `generate()` because each row draws from its own seed and leaves the
batch when it is finished, and because in fp32 its text must not depend on the rows beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from maft_lib.backends import BackendError, Completion, OnText, Sampling, chunks, models, sampling
from maft_lib.backends.alone import Alone
from maft_lib.backends.cache import growing_cache, joined
from maft_lib.backends.hub import Model, Tokenizer, load_tokenizer
from maft_lib.backends.rendering import stop_ids, tokenize
from maft_lib.workers import busy_seconds


class Row(NamedTuple):
    """A request as the model sees it."""

    prompt: list[int]
    sampling: Sampling
    seed: int


def generate_texts(
    model: Model, prompts: Sequence[str], drawn: Sampling, seeds: Sequence[int]
) -> list[Completion]:
    """Generates after rendered prompts, which are tokenized here: in the worker, not in its parent."""
    start = busy_seconds(model.device)
    completions = generate_rows(model, rows := _rows(model, prompts, drawn, seeds))
    share = (busy_seconds(model.device) - start) / len(rows)
    return [replace(completion, seconds=share) for completion in completions]


def stream_texts(
    model: Model, prompts: Sequence[str], drawn: Sampling, seeds: Sequence[int], on_text: OnText
) -> Iterator[tuple[int, Completion]]:
    """`generate_texts` for one who listens: yields (row, completion) as each row ends.

    After every step `on_text(row, text so far)` is told of the rows that were going; what it raises
    ends the decoding. The texts are the same.
    """
    rows = _rows(model, prompts, drawn, seeds)
    tokenizer = load_tokenizer(model.folder, trust=model.trust)
    with _one_thread(model.device):
        with _loading:
            loaded = models.cached_model(model)
        stops, last = _all_stop_ids(loaded, tokenizer), busy_seconds(model.device)
        for part in chunks(range(len(rows)), _rows_that_fit(loaded, rows)):
            writing = set(range(len(part)))
            for batch in _steps(loaded, [rows[i] for i in part], stops):
                for i in sorted(writing):
                    on_text(part[i], _text_so_far(tokenizer, batch.written[i], stops))
                for i in sorted(writing - batch.going):
                    ended = _completion(tokenizer, rows[part[i]], _finished(batch.written[i], stops))
                    last, began = busy_seconds(model.device), last
                    yield part[i], replace(ended, seconds=last - began)
                writing = set(batch.going)


_loading = threading.Lock()  # several threads may listen at once, and one alone may read the weights


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """PyTorch computes as in a worker: on a CPU with one thread, which is faster for small models."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _text_so_far(tokenizer: Tokenizer, ids: list[int], stops: set[int]) -> str:
    """The text of a row that may go on, without the first bytes of a character that is not whole."""
    text = str(tokenizer.decode(_finished(ids, stops)[0], skip_special_tokens=True))
    return text if ids[-1] in stops else text.rstrip("\ufffd")


def _rows(model: Model, prompts: Sequence[str], drawn: Sampling, seeds: Sequence[int]) -> list[Row]:
    tokenizer = load_tokenizer(model.folder, trust=model.trust)
    return [Row(tokenize(tokenizer, text), drawn, seed) for text, seed in zip(prompts, seeds)]


def generate_rows(model: Model, rows: Sequence[Row]) -> list[Completion]:
    """Generates for rows that share their sampling, in halves if they do not fit into memory."""
    loaded = models.cached_model(model)
    tokenizer = load_tokenizer(model.folder, trust=model.trust)
    allowed = _rows_that_fit(loaded, rows)
    if len(rows) > allowed:
        return [c for part in chunks(rows, allowed) for c in generate_rows(model, part)]
    try:
        outputs = _decode(loaded, rows, _all_stop_ids(loaded, tokenizer))
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _out_of_memory(error) or len(rows) == 1:
            raise
        outputs = None  # go on outside: the error's traceback holds the batch's memory
    if outputs is None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = (len(rows) + 1) // 2
        return generate_rows(model, rows[:half]) + generate_rows(model, rows[half:])
    return [_completion(tokenizer, row, output) for row, output in zip(rows, outputs)]


def _completion(tokenizer: Tokenizer, row: Row, output: tuple) -> Completion:
    ids, num_tokens, reason = output
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    return Completion(text, len(row.prompt), num_tokens, reason)


def _decode(model: PreTrainedModel, rows: Sequence[Row], stops: set[int]) -> list[tuple]:
    """Decodes a batch to its end.

    Returns (token ids without the stop token, number of tokens drawn, finish reason) per row.
    """
    for batch in _steps(model, rows, stops):
        written = batch.written
    return [_finished(ids, stops) for ids in written]


@torch.inference_mode()
def _steps(model: PreTrainedModel, rows: Sequence[Row], stops: set[int]) -> Iterator[_Batch]:
    """Decodes a batch token by token; yields it after every step until all its rows have ended."""
    batch = _Batch(model, rows)
    limits = [_new_tokens(model, row) for row in rows]
    uniforms = np.stack([np.random.default_rng(row.seed).random(max(limits)) for row in rows])
    for step in range(max(limits)):
        uniform = torch.from_numpy(uniforms[batch.places, step]).to(model.device)
        batch.append(_draw(model, batch, rows, uniform))
        batch.finish(
            i
            for i, place in enumerate(batch.places)
            if batch.written[place][-1] in stops or step + 1 >= limits[place]
        )
        yield batch
        if not batch.going:
            break


class _Batch:
    """The rows that are still being written, `places` in the original batch, with their cache.

    A finished row stays, unread, until a quarter of the batch has finished: to take rows out means to
    copy the cache.
    """

    def __init__(self, model: PreTrainedModel, rows: Sequence[Row]):
        self.model = model
        self.written: list[list[int]] = [[] for _ in rows]
        self.places = list(range(len(rows)))
        self.going = set(self.places)
        self.inputs, self.mask = _left_padded([row.prompt for row in rows], model)
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.alone = Alone(model)
        self.cache, self._read = growing_cache(model.config), None
        if self.alone.remembers:
            self._read = self.alone.read([row.prompt for row in rows])
            self.cache = joined(list(self.alone.caches.values()), model.config)

    def logits(self) -> torch.Tensor:
        """Next-token logits in fp32 (rows, vocabulary); the cache then holds the inputs."""
        if self._read is not None:
            logits, self._read = self._read, None
            return logits
        return (
            self.model(
                input_ids=self.inputs,
                attention_mask=self.mask,
                position_ids=self.positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .float()
        )

    def append(self, tokens: torch.Tensor) -> None:
        """Writes one token (rows,) to every row that is going and makes it the next input."""
        for place, token in zip(self.places, tokens.tolist()):
            if place in self.going:
                self.written[place].append(token)
        self.inputs, self.positions = tokens.unsqueeze(1), self.positions[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)

    def finish(self, finished: Iterable[int]) -> None:
        """Marks rows as finished and takes them out once they are many."""
        ended = {self.places[i] for i in finished}
        self.going -= ended
        self.alone.forget(ended)
        if not self.going or len(self.going) > 0.75 * len(self.places):
            return
        staying = [i for i, place in enumerate(self.places) if place in self.going]
        keep = torch.tensor(staying, device=self.model.device)
        self.places = [self.places[i] for i in staying]
        self.inputs, self.mask = self.inputs[keep], self.mask[keep]
        self.positions = self.positions[keep]
        self.cache.batch_select_indices(keep)


def _draw(
    model: PreTrainedModel, batch: _Batch, rows: Sequence[Row], uniform: torch.Tensor
) -> torch.Tensor:
    """The next token of every row; in fp32 an uncertain draw is settled by the row alone."""
    drawn = rows[0].sampling
    tokens, unsure = sampling.draw(batch.logits(), drawn.temperature, drawn.top_p, uniform)
    if model.dtype == torch.float32:
        for i in unsure.nonzero().flatten().tolist():
            if (place := batch.places[i]) in batch.going:
                logits = batch.alone.logits(place, rows[place].prompt, batch.written[place])
                own = uniform[i : i + 1]
                tokens[i] = sampling.draw(logits, drawn.temperature, drawn.top_p, own)[0][0]
    return tokens


def _finished(ids: list[int], stops: set[int]) -> tuple[list[int], int, str]:
    stopped = bool(ids) and ids[-1] in stops
    return (ids[:-1] if stopped else ids), len(ids), "stop" if stopped else "length"


def _left_padded(prompts: list[list[int]], model: PreTrainedModel) -> tuple[torch.Tensor, ...]:
    longest, pad = max(map(len, prompts)), model.config.pad_token_id or 0
    ids = [[pad] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=model.device), torch.tensor(mask, device=model.device)


def _new_tokens(model: PreTrainedModel, row: Row) -> int:
    """`max_tokens`, or what the context window leaves. Raises `BackendError` if it leaves nothing."""
    window = getattr(model.config, "max_position_embeddings", None) or 10**9
    if len(row.prompt) >= window:
        raise BackendError(
            f"a prompt of {len(row.prompt)} tokens does not fit the model's {window}: lower num_agents "
            "or num_rounds, or keep summarize on."
        )
    return min(row.sampling.max_tokens, window - len(row.prompt))


def _all_stop_ids(model: PreTrainedModel, tokenizer: Tokenizer) -> set[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return stop_ids(tokenizer) | {token for token in listed if token is not None}


def _rows_that_fit(model: PreTrainedModel, rows: Sequence[Row]) -> int:
    """Rows whose keys, values and sorted logits fit into the GPU's free memory; on a CPU all."""
    if model.device.type != "cuda":
        return len(rows)
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    logits = 5 * 8 * config.vocab_size  # what `sampling.draw` holds of a row, in fp64
    per_token = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    per_token *= 2 if model.dtype == torch.float32 else 1  # `alone` keeps rows a second time
    length = max(len(row.prompt) for row in rows) + rows[0].sampling.max_tokens
    free, _ = torch.cuda.mem_get_info()
    free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return max(1, int(0.6 * free / (per_token * length + logits)))


def _out_of_memory(error: BaseException) -> bool:
    named = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return named or "not enough memory" in str(error) or "can't allocate memory" in str(error)
