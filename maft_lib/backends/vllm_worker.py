"""What runs inside vLLM's own worker processes: the swap of one model's weights for another's.

vLLM mixes this class into its worker (`worker_extension_cls`); it imports nothing of this library.
"""

from __future__ import annotations

from typing import Any


class WeightSwap:
    """Methods that the parent calls by `collective_rpc`."""

    def swap_weights(self: Any, folder: str) -> tuple[list[float], list[float]]:
        """Reads all weights of `folder` into the model in memory, which has the same architecture.

        Returns a sum per parameter before and after, by which a swap that did nothing can be told.
        """
        model = self.model_runner.get_model()
        before = _sums(model)
        self.reload_weights(weights_path=folder)
        model = self.model_runner.get_model()
        if getattr(model.config, "tie_word_embeddings", False):
            _tie_head(model)
        return before, _sums(model)


def _sums(model: Any) -> list[float]:
    return [float(weight.detach().double().sum()) for weight in model.parameters()]


def _tie_head(model: Any) -> None:
    """On a CPU the head multiplies by a packed copy of the embeddings, which reloading leaves stale."""
    head: Any = getattr(model, "lm_head", None)  # some models have none of their own
    head = getattr(head, "base_layer", head)
    if hasattr(head, "cpu_linear"):
        embeddings = getattr(model.model.embed_tokens, "base_layer", model.model.embed_tokens)
        head.weight = embeddings.weight
        head.quant_method.process_weights_after_loading(head)
