"""Decodes a batch of rows with one model by transformers' `generate`.

Each row draws from its own seed, and in fp32 its text does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor, PreTrainedModel

from maft_lib.backends import BackendError, Completion, Sampling, chunks
from maft_lib.backends.hub import Model, load_tokenizer
from maft_lib.backends.models import cached_model, check_text, context_window, declared_stops
from maft_lib.backends.rendering import stop_ids, tokenize, written_text
from maft_lib.workers import busy_seconds

# Cumulative probabilities of the miniature model and of six finetuned ones, batched and alone, differed
# by up to 4.6e-6 in fp32 at temperature 1, by 3.4e-6 at 2 (180 critic prompts, 4 steps each). A larger
# model may want a larger margin; each draw within it costs a pass over the row.
MARGIN = 3e-5
# Mean difference of logits by rounding, in their standard deviations; wrong ones are off by tenths
NOISE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
_decodes: dict[str, bool] = {}


class Row(NamedTuple):
    """A request as the model sees it: token ids, how many may follow, and the seed."""

    prompt: list[int]
    limit: int
    seed: int


def decode(
    model: Model, prompts: Sequence[str], drawn: Sampling, seeds: Sequence[int]
) -> list[Completion]:
    """The completions of a batch; one that does not fit into memory is halved.

    Rendered prompts are tokenized here: in the worker, not in its parent.
    """
    tokenizer = load_tokenizer(model.folder, trust=model.trust, template=model.template)
    loaded = cached_model(model)
    if not decodes(loaded):
        raise BackendError(
            f"model {model.folder} ({loaded.config.model_type}) does not write in a batch what it "
            "would write alone: take backend: vllm, or another model."
        )
    rows = []
    for prompt, seed in zip(prompts, seeds):
        ids = tokenize(tokenizer, prompt)
        check_text(loaded, tokenizer, ids, 1)
        limit = min(drawn.max_tokens, (context_window(loaded) or 10**9) - len(ids))
        rows.append(Row(ids, limit, seed))
    stops, done = stop_ids(tokenizer, declared_stops(loaded)), dict[int, Completion]()
    whole = [i for i, row in enumerate(rows) if row.limit == drawn.max_tokens]
    # a row that the window cuts is decoded alone: beside others it would go on
    parts = [whole] * bool(whole) + [[i] for i in range(len(rows)) if i not in whole]
    while parts:
        part, began = parts.pop(0), busy_seconds(model.device)
        try:
            written = _written(loaded, [rows[i] for i in part], drawn, stops)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            parts[:0] = chunks(part, (len(part) + 1) // 2)
            continue
        seconds = (busy_seconds(model.device) - began) / len(part)
        for i, ids in zip(part, written):
            stopped = ids[-1] in stops
            said = written_text(tokenizer, ids[: len(ids) - stopped], prompts[i])
            reason = "stop" if stopped else "length"
            done[i] = Completion(said, len(rows[i].prompt), len(ids), reason, seconds=seconds)
    return [done[i] for i in range(len(rows))]


@torch.inference_mode()
def _written(
    model: PreTrainedModel, rows: Sequence[Row], drawn: Sampling, stops: set[int]
) -> list[list[int]]:
    """The new tokens of each row, its stop token included."""
    inputs, mask = padded([row.prompt for row in rows], model)
    width = inputs.shape[1]
    output: Any = model.generate(  # type: ignore[operator]
        inputs,
        attention_mask=mask,
        max_new_tokens=rows[0].limit,
        do_sample=False,
        eos_token_id=sorted(stops),
        pad_token_id=min(stops),
        logits_processor=[Draws(model, rows, drawn, width)],
    )
    new = output[:, width:].tolist()
    ends = [next((n for n, token in enumerate(ids, 1) if token in stops), None) for ids in new]
    return [ids[:end] for ids, end in zip(new, ends)]


class Draws(LogitsProcessor):
    """Draws the next token of every row from the row's own seed, and leaves no other to be chosen."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[Row], drawn: Sampling, width: int):
        self.model, self.rows, self.width = model, rows, width
        self.how = drawn.temperature, drawn.top_p
        uniforms = [np.random.default_rng(row.seed).random(rows[0].limit) for row in rows]
        self.uniforms = torch.from_numpy(np.stack(uniforms)).to(model.device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) that leave one token; in fp32 the row alone settles doubts."""
        uniform = self.uniforms[:, input_ids.shape[1] - self.width]
        tokens, unsure = draw(scores, *self.how, uniform)
        for i in unsure.nonzero().flatten().tolist() if self.model.dtype == torch.float32 else ():
            row = [*self.rows[i].prompt, *input_ids[i, self.width :].tolist()]
            ids = torch.tensor([row], device=self.model.device)
            alone = self.model(ids, use_cache=False, logits_to_keep=1).logits[:, -1].float()
            tokens[i] = draw(alone, *self.how, uniform[i : i + 1])[0][0]
        return torch.full_like(scores, -torch.inf).scatter(1, tokens.unsqueeze(1), 0.0)


@torch.inference_mode()
def decodes(model: PreTrainedModel) -> bool:
    """Whether a model decodes a padded batch as it reads each text at once; asks the model itself.

    Some layers do not look at the mask.
    """
    asked = f"{type(model)} {model.dtype} {model.device} {model.config.to_json_string()}"
    if asked not in _decodes:
        _decodes[asked] = _agrees(model)
    return _decodes[asked]


def _agrees(model: PreTrainedModel) -> bool:
    prompts = [[*range(1, 1 + length)] for length in (2, 9, 5)]
    inputs, mask = padded(prompts, model)
    how: Any = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    how |= {"min_new_tokens": 3, "max_new_tokens": 3, "pad_token_id": 0}  # no password  # nosec B105
    try:
        output: Any = model.generate(inputs, attention_mask=mask, **how)  # type: ignore[operator]
        written = output.sequences[:, inputs.shape[1] : -1].tolist()
        texts = [torch.tensor([a + b], device=model.device) for a, b in zip(prompts, written)]
        plain = [model(ids, use_cache=False).logits[0, -1] for ids in texts]
        wanted = torch.stack(plain).float()
        noise = (output.logits[-1].float() - wanted).abs().mean() / wanted.std()
    except torch.OutOfMemoryError:
        raise
    except Exception:  # each architecture has its own way of not being able to
        return False
    return bool(noise < NOISE[model.dtype])


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
