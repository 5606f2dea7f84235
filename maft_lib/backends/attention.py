"""Attention of a single new token where heads share keys and values. Knows tensors only.

With padding in a batch transformers copies keys and values for every head that reads them; the longer
the conversation, the more of the attention's time goes into that.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

GROUPED = "maft_grouped"  # the name by which a model asks for it, as `attn_implementation`


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Output (rows, 1, heads, width) of queries (rows, heads, 1, width) and fewer heads of keys.

    All heads that read the same keys see the same positions, so they pass as so many queries of one
    head. Several new tokens at a time, or as many keys as queries, go the way of transformers.
    """
    rows, heads, tokens, width = query.shape
    shared = key.shape[1]
    if tokens > 1 or shared == heads or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    output = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, shared, heads // shared, width), key, value, attention_mask, scale=scaling
    )
    return output.reshape(rows, heads, 1, -1).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(GROUPED, grouped_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(GROUPED, sdpa_mask)
