"""What runs inside vLLM's own worker processes: the swap of one model's weights for another's.

vLLM mixes this class into its worker (`worker_extension_cls`); it imports nothing of this library.
"""

from __future__ import annotations

from typing import Any


class WeightSwap:
    """Methods that the parent calls by `collective_rpc`."""

    def swap_weights(self: Any, folder: str) -> None:
        """Reads all weights of `folder` into the model in memory, which has the same architecture."""
        self.reload_weights(weights_path=folder)
        model = self.model_runner.get_model()
        if getattr(model.config, "tie_word_embeddings", False):
            _tie_head(model)


def _tie_head(model: Any) -> None:
    """On a CPU the head multiplies by a packed copy of the embeddings, which reloading leaves stale."""
    head = getattr(model.lm_head, "base_layer", model.lm_head)
    embeddings = getattr(model.model.embed_tokens, "base_layer", model.model.embed_tokens)
    if hasattr(head, "cpu_linear"):
        head.weight = embeddings.weight
        head.quant_method.process_weights_after_loading(head)
