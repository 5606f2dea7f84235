"""Decodes a batch of rows with one model, in a worker or where someone listens.

Written here rather than left to `generate()` because each row draws from its own seed and leaves the
batch when it is finished, and because in fp32 its text must not depend on the rows beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from maft_lib.backends import BackendError, Completion, OnText, Sampling, chunks
from maft_lib.backends.hub import Model, Tokenizer, load_tokenizer
from maft_lib.backends.models import cached_model, check_text, context_window
from maft_lib.backends.rendering import stop_ids, tokenize, written_text
from maft_lib.workers import busy_seconds

# Cumulative probabilities of the miniature model and of six finetuned ones, batched and alone, differed
# by up to 4.6e-6 in fp32 at temperature 1, by 3.4e-6 at 2 (180 critic prompts, 4 steps each). A larger
# model may want a larger margin; each draw within it costs a pass over the row.
MARGIN = 3e-5
FEW = 1024  # tokens
ROOM = 64  # tokens that a cache grows by
# Mean difference of logits by rounding, in their standard deviations; wrong ones are off by tenths
NOISE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
_decodes: dict[str, bool] = {}
_loading = threading.Lock()  # several threads may listen at once, and one alone may read the weights


class Row(NamedTuple):
    """A request as the model sees it."""

    prompt: list[int]
    sampling: Sampling
    seed: int


def stream_texts(
    model: Model,
    prompts: Sequence[str],
    drawn: Sampling,
    seeds: Sequence[int],
    on_text: OnText | None = None,
) -> Iterator[tuple[int, Completion]]:
    """Yields (row, completion) as each row ends; a batch that does not fit into memory is halved.

    Rendered prompts are tokenized here: in the worker, not in its parent. After every step
    `on_text(row, text so far)` hears of the rows that were going; what it raises ends the decoding. The
    texts are the same.
    """
    tokenizer = load_tokenizer(model.folder, trust=model.trust, template=model.template)
    rows = [Row(tokenize(tokenizer, text), drawn, seed) for text, seed in zip(prompts, seeds)]
    with _loading:
        loaded = cached_model(model)
        if not decodes(loaded):
            raise BackendError(
                f"model {model.folder} ({loaded.config.model_type}) does not write in a batch what it "
                "would write alone: take backend: vllm, or another model."
            )
    for row in rows:
        check_text(loaded, tokenizer, row.prompt, 1)
    eos = getattr(loaded.generation_config, "eos_token_id", None)
    stops = stop_ids(tokenizer, eos if isinstance(eos, list) else [] if eos is None else [eos])
    parts, last = [list(range(len(rows)))], busy_seconds(model.device)
    while parts:
        part, ended = parts.pop(0), set()
        try:
            for i, completion in _decode(loaded, tokenizer, rows, prompts, part, stops, on_text):
                last, began = busy_seconds(model.device), last
                ended.add(i)
                yield i, replace(completion, seconds=last - began)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            left = [i for i in part if i not in ended]
            parts[:0] = chunks(left, (len(left) + 1) // 2)


def _decode(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    prompts: Sequence[str],
    part: Sequence[int],
    stops: set[int],
    on_text: OnText | None,
) -> Iterator[tuple[int, Completion]]:
    """Yields (row, completion) of the rows in `part`, one batch, each as it ends."""
    writing = set(range(len(part)))
    for batch in _steps(model, [rows[i] for i in part], stops):
        for place in sorted(writing) if on_text else writing - batch.going:
            i, ids = part[place], batch.written[place]
            stopped = ids[-1] in stops
            text = written_text(tokenizer, ids[: len(ids) - stopped], prompts[i])
            if on_text:  # without the first bytes of a character that is not whole
                on_text(i, text if stopped else text.rstrip("\ufffd"))
            if place not in batch.going:
                reason = "stop" if stopped else "length"
                yield i, Completion(text, len(rows[i].prompt), len(ids), reason)
        writing &= batch.going


@torch.inference_mode()
def _steps(model: PreTrainedModel, rows: Sequence[Row], stops: set[int]) -> Iterator[_Batch]:
    """Decodes a batch token by token; yields it after every step until all its rows have ended."""
    batch, window = _Batch(model, rows), context_window(model) or 10**9
    limits = [min(row.sampling.max_tokens, window - len(row.prompt)) for row in rows]
    uniforms = np.stack([np.random.default_rng(row.seed).random(max(limits)) for row in rows])
    for step in range(max(limits)):
        batch.write(torch.from_numpy(uniforms[batch.places, step]).to(model.device))
        batch.leave(
            {
                place
                for place in batch.places
                if batch.written[place][-1] in stops or step + 1 >= limits[place]
            }
        )
        yield batch
        if not batch.going:
            break


@torch.inference_mode()
def decodes(model: PreTrainedModel) -> bool:
    """Whether a model decodes a batch as it reads each text at once.

    Asks the model itself, with rows of several lengths of which one leaves: what its layers keep is not
    always keys and values, lies not always in the cache, and some do not look at the mask.
    """
    asked = f"{type(model)} {model.dtype} {model.device} {model.config.to_json_string()}"
    if asked not in _decodes:
        _decodes[asked] = _agrees(model)
    return _decodes[asked]


def _agrees(model: PreTrainedModel) -> bool:
    batch = _Batch(model, [Row([*range(1, 1 + length)], Sampling(), 0) for length in (2, 9, 5)])
    try:
        for ended in ({0}, set()):
            batch.logits()
            batch.append(torch.tensor(batch.places, device=model.device) + 3)
            batch.leave(ended)
        texts = [batch.rows[place].prompt + batch.written[place] for place in batch.places]
        plain = [model(torch.tensor([ids], device=model.device), use_cache=False) for ids in texts]
        wanted = torch.stack([output.logits[0, -1] for output in plain]).float()
        noise = (batch.logits() - wanted).abs().mean() / wanted.std()
    except torch.OutOfMemoryError:
        raise
    except Exception:  # each architecture has its own way of not being able to
        return False
    return bool(noise < NOISE[model.dtype])


class _Batch:
    """The rows that are still being written, `places` in the original batch, with their cache.

    A finished row stays, unread, until a quarter of the batch has finished: to take rows out means to
    copy the cache.
    """

    def __init__(self, model: PreTrainedModel, rows: Sequence[Row]):
        self.model, self.rows, self.cache = model, rows, growing_cache(model)
        self.written: list[list[int]] = [[] for _ in rows]
        self.places = list(range(len(rows)))
        self.going = set(self.places)
        self.inputs, self.mask = padded([row.prompt for row in rows], model)
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

    def write(self, uniform: torch.Tensor) -> None:
        """Draws a token for every row; in fp32 an uncertain draw is settled by the row alone."""
        drawn = self.rows[0].sampling
        tokens, unsure = draw(self.logits(), drawn.temperature, drawn.top_p, uniform)
        for i in unsure.nonzero().flatten().tolist() if self.model.dtype == torch.float32 else ():
            if (place := self.places[i]) in self.going:
                row = self.rows[place].prompt + self.written[place]
                ids = torch.tensor([row], device=self.model.device)
                logits = self.model(ids, use_cache=False, logits_to_keep=1).logits[:, -1].float()
                single = draw(logits, drawn.temperature, drawn.top_p, uniform[i : i + 1])
                tokens[i] = single[0][0]
        self.append(tokens)

    def append(self, tokens: torch.Tensor) -> None:
        """Writes one token (rows,) to every row that is going and makes it the next input."""
        for place, token in zip(self.places, tokens.tolist()):
            if place in self.going:
                self.written[place].append(token)
        self.inputs, self.positions = tokens.unsqueeze(1), self.positions[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)

    def leave(self, ended: set[int]) -> None:
        """Marks rows as finished and takes them out once they are many."""
        self.going -= ended
        if not self.going or len(self.going) > 0.75 * len(self.places):
            return
        staying = [i for i, place in enumerate(self.places) if place in self.going]
        keep: Any = torch.tensor(staying, device=self.model.device)
        self.places = [self.places[i] for i in staying]
        self.inputs, self.mask = self.inputs[keep], self.mask[keep]
        self.positions = self.positions[keep]
        self.cache.reorder_cache(keep)


def draw(
    logits: torch.Tensor, temperature: float, top_p: float, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens drawn from `logits` (rows, vocabulary) with one `uniform` number in [0, 1) a row.

    A token is where its number falls in the cumulative distribution, taken in the order of the
    vocabulary after the top-p cut; temperature 0 takes the likeliest. Logits differ in their last bits
    with the rows of a batch: also returns whether those bits could decide a draw (rows,), in which case
    the caller repeats it on the row alone.
    """
    margin = MARGIN * max(1.0, 1 / temperature if temperature else 1.0)  # a low one magnifies noise
    if temperature == 0:
        best = logits.topk(2, dim=-1)
        return best.indices[:, 0], best.values[:, 0] - best.values[:, 1] < margin
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    uncertain = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    if top_p < 1:
        probabilities, uncertain = nucleus(probabilities, top_p, margin)
    cumulative = probabilities.cumsum(dim=-1)
    target = uniform.to(cumulative).unsqueeze(1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True).squeeze(1)
    near = ((cumulative - target).abs() < margin) & (probabilities > 0)
    return tokens.clamp(max=logits.shape[1] - 1), near.any(dim=-1) | uncertain


def nucleus(
    probabilities: torch.Tensor, top_p: float, margin: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Zeroes all but the likeliest tokens that together reach `top_p` (rows, vocabulary).

    Also tells whether the last bits could move the cut (rows,): where the mass before a token is
    near top_p, or a kept and a dropped token are about equally likely.
    """
    large = probabilities.shape[1] > FEW
    if large:  # a nucleus is a small part of a large vocabulary, and to sort all of it is slow
        ranked, order = probabilities.topk(FEW, dim=-1)
    if not large or bool((ranked[:, :-1].sum(dim=-1) <= top_p + margin).any()):
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ranked.cumsum(dim=-1) - ranked
    kept = before < top_p
    unsure = ((before - top_p).abs() < margin).any(dim=-1)
    last = kept.sum(dim=-1, keepdim=True)
    beyond = ranked.gather(1, last.clamp(max=ranked.shape[1] - 1))
    at_cut = ranked.gather(1, last - 1)
    unsure |= ((at_cut - beyond < margin * at_cut) & (beyond > 0)).squeeze(1)
    return torch.zeros_like(probabilities).scatter(1, order, torch.where(kept, ranked, 0.0)), unsure


def padded(
    rows: Sequence[Sequence[int]], model: PreTrainedModel, side: str = "left"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (rows, longest) padded on one side, and the mask of what is no padding."""
    ids = [torch.tensor(row) for row in rows]
    mask = pad_sequence([torch.ones_like(row) for row in ids], True, 0, side)
    return pad_sequence(ids, True, 0, side).to(model.device), mask.to(model.device)


class GrowingLayer(DynamicLayer):
    """Keys and values (rows, heads, tokens, width) as views of buffers that grow `ROOM` tokens at once.

    The dynamic cache of transformers allocates and copies all of them anew for every token.
    """

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs) -> tuple:
        """Appends the states of new tokens and returns those of all tokens."""
        start, new = self.get_seq_length(), (key_states, value_states)
        end = start + key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers: tuple[torch.Tensor, ...] = new
        if end > self._buffers[0].shape[2] or not start:
            grow = (0, 0, 0, end + ROOM - self._buffers[0].shape[2])
            self._buffers = tuple(torch.nn.functional.pad(old, grow) for old in self._buffers)
        for buffer, states in zip(self._buffers, new):
            buffer[:, :, start:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keeps the rows `beam_idx` of the batch; every kind of layer can do this."""
        if end := self.get_seq_length():
            self._buffers = tuple(buffer[beam_idx] for buffer in self._buffers)
            self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)


def growing_cache(model: PreTrainedModel) -> DynamicCache:
    """The model's dynamic cache with its plain layers replaced; sliding windows stay as they are."""
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
