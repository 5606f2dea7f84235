"""A row's next-token logits as they are without company, for draws that the last bits decide.

They must not depend on the batch, nor on when they are asked for. Knows no sampling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from transformers import Cache, PreTrainedModel

from maft_lib.backends.cache import GrowingLayer, growing_cache

SMALL = 10**7  # parameters: a pass over such a model costs less than to remember the row
STRIDE = 8  # tokens


class Alone:
    """Passes single rows of a batch through the model.

    A large model in fp32 reads the prompts one by one, which takes it no longer than all together, and
    `remembers` each row up to a place that is given by the row itself: the prompt, and then every
    `STRIDE` tokens of the response. So each token has gone through the model in the same company of its
    own row's tokens, whenever that was.
    """

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.caches: dict[int, Cache] = {}
        self._first: dict[int, torch.Tensor] = {}  # logits after the prompt
        whole = all(type(layer) is GrowingLayer for layer in growing_cache(model.config).layers)
        large = model.dtype == torch.float32 and model.num_parameters() > SMALL
        self.remembers = whole and large  # sliding windows cannot be cut

    def read(self, prompts: Sequence[list[int]]) -> torch.Tensor:
        """Next-token logits (rows, vocabulary) after prompts, which are remembered."""
        for place, prompt in enumerate(prompts):
            self.caches[place] = growing_cache(self.model.config)
            self._first[place] = self._pass(prompt, self.caches[place])
        return torch.cat([self._first[place] for place in range(len(prompts))])

    def logits(self, place: int, prompt: list[int], written: list[int]) -> torch.Tensor:
        """Next-token logits in fp32 (1, vocabulary) of the row at `place` of the batch."""
        ids = prompt + written
        if not self.remembers:
            return self._pass(ids, None)
        if not written:
            return self._first[place]
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
            self._first.pop(place, None)

    def _pass(self, ids: list[int], cache: Cache | None) -> torch.Tensor:
        inputs = torch.tensor([ids], device=self.model.device)
        output = self.model(
            input_ids=inputs, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1
        )
        return output.logits[:, -1].float()
