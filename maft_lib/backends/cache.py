"""A key-value cache with room to grow. Knows tensors only.

The dynamic cache of transformers concatenates for every token: it allocates and copies all keys and
values anew each time. Here they are written into buffers
that are enlarged once in `ROOM` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import Cache, DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens


class GrowingLayer(DynamicLayer):
    """Keys and values (rows, heads, tokens, width) as views of larger buffers."""

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
    rows, heads, tokens, width = states.shape
    buffer = states.new_empty(rows, heads, tokens + ROOM, width)
    buffer[:, :, :tokens] = states
    return buffer


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """The model's dynamic cache with its plain layers replaced; sliding windows stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def joined(caches: Sequence[Cache], config: PretrainedConfig) -> DynamicCache:
    """One cache of all rows from growing caches of one row each, padded on the left."""
    whole = growing_cache(config)
    for number in range(len(whole.layers)):
        parts = [cache.layers[number] for cache in caches]
        keys, values = ([getattr(part, name)[0] for part in parts] for name in ("keys", "values"))
        whole.update(_left_padded(keys), _left_padded(values), number)
    return whole


def _left_padded(states: Sequence[torch.Tensor]) -> torch.Tensor:
    """States (heads, tokens, width) of each row in one tensor (rows, heads, tokens, width)."""
    longest = max(row.shape[1] for row in states)
    heads, _, width = states[0].shape
    padded = states[0].new_zeros(len(states), heads, longest, width)
    for place, row in enumerate(states):
        padded[place, :, longest - row.shape[1] :] = row
    return padded
