"""Draws a token from logits, so that a response depends on its own seed and nothing else.

Each row brings one uniform number per token. The token is where that number falls in the cumulative
distribution, taken in the order of the vocabulary after the top-p cut. Logits of a row differ in their
last bits with the rows it is batched with; a draw so near to a boundary that those bits could decide it
is reported as uncertain, and the caller repeats it on the row alone.
"""

from __future__ import annotations

import torch

# Cumulative probabilities of the miniature model and of six finetuned ones, batched and alone, differed
# by up to 4.6e-6 in fp32 at temperature 1, by 3.4e-6 at 2 (180 critic prompts, 4 steps each). A larger
# model may want a larger margin; each draw within it costs a pass over the row.
MARGIN = 3e-5
FEW = 1024  # tokens


def draw(
    logits: torch.Tensor, temperature: float, top_p: float, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens drawn from `logits` (rows, vocabulary) with one `uniform` number in [0, 1) a row.

    Returns the token ids (rows,) and whether each draw is uncertain (rows,). Temperature 0 takes the
    likeliest token.
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
