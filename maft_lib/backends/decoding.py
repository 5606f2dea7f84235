"""Decodes a batch of rows with one model, in a worker or where someone listens.

Written here rather than left to `generate()` because each row draws from its own seed and leaves the
batch when it is finished, and because in fp32 its text must not depend on the rows beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from transformers import Cache, DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from maft_lib.backends import BackendError, Completion, OnText, Sampling, chunks, sampling
from maft_lib.backends.hub import Model, Tokenizer, load_tokenizer
from maft_lib.backends.models import cached_model
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
    completions = dict(stream_texts(model, prompts, drawn, seeds))
    share = (busy_seconds(model.device) - start) / len(prompts)
    return [replace(completions[i], seconds=share) for i in range(len(prompts))]


def stream_texts(
    model: Model,
    prompts: Sequence[str],
    drawn: Sampling,
    seeds: Sequence[int],
    on_text: OnText | None = None,
) -> Iterator[tuple[int, Completion]]:
    """Yields (row, completion) as each row ends; a batch that does not fit into memory is halved.

    After every step `on_text(row, text so far)` hears of the rows that were going; what it raises ends
    the decoding. The texts are the same.
    """
    tokenizer = load_tokenizer(model.folder, trust=model.trust)
    rows = [Row(tokenize(tokenizer, text), drawn, seed) for text, seed in zip(prompts, seeds)]
    with _one_thread(on_text is not None and model.device == "cpu"):
        with _loading:
            loaded = cached_model(model)
        last = busy_seconds(model.device)
        parts, ended = chunks(range(len(rows)), _rows_that_fit(loaded, rows)), set()
        while parts:
            part = parts.pop(0)
            hear = (lambda i, text, part=part: on_text(part[i], text)) if on_text else None
            try:
                for i, completion in _decode(loaded, tokenizer, [rows[i] for i in part], hear):
                    last, began = busy_seconds(model.device), last
                    ended.add(part[i])
                    yield part[i], replace(completion, seconds=last - began)
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or len(part) == 1:
                    raise
                left = [i for i in part if i not in ended]
                parts[:0] = chunks(left, (len(left) + 1) // 2)


_loading = threading.Lock()  # several threads may listen at once, and one alone may read the weights


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """PyTorch computes as in a worker of a CPU: with one thread, which is faster for small models."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _decode(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    hear: Callable[[int, str], None] | None = None,
) -> Iterator[tuple[int, Completion]]:
    """Yields (row, completion) of one batch, each as it ends."""
    stops, writing = _all_stop_ids(model, tokenizer), set(range(len(rows)))
    for batch in _steps(model, rows, stops):
        for i in sorted(writing):
            ids = batch.written[i]
            stopped = ids[-1] in stops
            if hear or i not in batch.going:
                shown = ids[:-1] if stopped else ids
                text = str(tokenizer.decode(shown, skip_special_tokens=True))
            if hear:  # without the first bytes of a character that is not whole
                hear(i, text if stopped else text.rstrip("\ufffd"))
            if i not in batch.going:
                reason = "stop" if stopped else "length"
                yield i, Completion(text, len(rows[i].prompt), len(ids), reason)
        writing = set(batch.going)


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
            place
            for place in batch.places
            if batch.written[place][-1] in stops or step + 1 >= limits[place]
        )
        yield batch
        if not batch.going:
            break


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


class _Batch:
    """The rows that are still being written, `places` in the original batch, with their cache.

    A finished row stays, unread, until a quarter of the batch has finished: to take rows out means to
    copy the cache.
    """

    def __init__(self, model: PreTrainedModel, rows: Sequence[Row]):
        self.model, self.alone, self.cache = model, Alone(model), growing_cache(model.config)
        self.written: list[list[int]] = [[] for _ in rows]
        self.places = list(range(len(rows)))
        self.going = set(self.places)
        longest, pad = max(len(row.prompt) for row in rows), model.config.pad_token_id or 0
        fill = [longest - len(row.prompt) for row in rows]
        ids = [[pad] * n + row.prompt for row, n in zip(rows, fill)]
        self.inputs = torch.tensor(ids, device=model.device)
        mask = [[0] * n + [1] * (longest - n) for n in fill]
        self.mask = torch.tensor(mask, device=model.device)
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)

    def logits(self) -> torch.Tensor:
        """Next-token logits in fp32 (rows, vocabulary); the cache then holds the inputs."""
        output = self.model(
            input_ids=self.inputs,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    def append(self, tokens: torch.Tensor) -> None:
        """Writes one token (rows,) to every row that is going and makes it the next input."""
        for place, token in zip(self.places, tokens.tolist()):
            if place in self.going:
                self.written[place].append(token)
        self.inputs, self.positions = tokens.unsqueeze(1), self.positions[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)

    def finish(self, places: Iterable[int]) -> None:
        """Marks rows as finished and takes them out once they are many."""
        ended = set(places)
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
    per_token *= 2 if model.dtype == torch.float32 else 1  # `Alone` keeps rows a second time
    length = max(len(row.prompt) for row in rows) + rows[0].sampling.max_tokens
    torch.cuda.empty_cache()
    return max(1, int(0.6 * torch.cuda.mem_get_info()[0] / (per_token * length + logits)))


def _out_of_memory(error: BaseException) -> bool:
    named = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return named or "not enough memory" in str(error) or "can't allocate memory" in str(error)


# --- keys and values ------------------------------------------------------------------------------

ROOM = 64  # tokens


class GrowingLayer(DynamicLayer):
    """Keys and values (rows, heads, tokens, width) as views of buffers that grow `ROOM` tokens at once.

    The dynamic cache of transformers allocates and copies all of them anew for every token.
    """

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends the states of new tokens and returns those of all tokens."""
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = tuple(_with_room(new) for new in (key_states, value_states))
        elif end > self._buffers[0].shape[2]:
            self._buffers = tuple(_with_room(old) for old in self._buffers)
        for buffer, new in zip(self._buffers, (key_states, value_states)):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the rows `indices` of the batch."""
        end = self.get_seq_length()
        self._buffers = tuple(buffer[indices] for buffer in self._buffers)
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)


def _with_room(states: torch.Tensor) -> torch.Tensor:
    """A buffer that begins with `states` and has room for more tokens."""
    return torch.nn.functional.pad(states, (0, 0, 0, ROOM))


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """The model's dynamic cache with its plain layers replaced; sliding windows stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


SMALL = 10**7  # parameters: a pass over such a model costs less than to remember the row
STRIDE = 8  # tokens


class Alone:
    """Next-token logits of single rows of a batch, whatever the batch and whenever they are asked for.

    With a large model a row is `remembered` up to a place that is given by the row itself: the prompt,
    and then every `STRIDE` tokens of the response. So each token has gone through the model in the same
    company of its own row's tokens.
    """

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.caches: dict[int, Cache] = {}
        whole = all(type(layer) is GrowingLayer for layer in growing_cache(model.config).layers)
        self.remembers = whole and model.num_parameters() > SMALL  # sliding windows cannot be cut

    def logits(self, place: int, prompt: list[int], written: list[int]) -> torch.Tensor:
        """Next-token logits in fp32 (1, vocabulary) of the row at `place` of the batch."""
        ids = prompt + written
        if not self.remembers:
            return self._pass(ids, None)
        if place not in self.caches:
            self.caches[place] = growing_cache(self.model.config)
            first = self._pass(prompt, self.caches[place])
            if not written:
                return first
        cache = self.caches[place]
        for end in range(len(prompt) + STRIDE, len(ids), STRIDE):
            if cache.get_seq_length() < end:
                self._pass(ids[cache.get_seq_length() : end], cache)
        known = cache.get_seq_length()
        logits = self._pass(ids[known:], cache)
        cache.crop(known - len(ids))  # below zero: so many at the end
        return logits

    def forget(self, places: Iterable[int]) -> None:
        """Frees the memory of rows that have ended."""
        for place in places:
            self.caches.pop(place, None)

    def _pass(self, ids: list[int], cache: Cache | None) -> torch.Tensor:
        inputs = torch.tensor([ids], device=self.model.device)
        output = self.model(
            input_ids=inputs, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1
        )
        return output.logits[:, -1].float()
