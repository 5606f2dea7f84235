"""Forward passes over finished text with one model: what the `scorer` has its workers do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
)

from maft_lib.backends import BackendError, chunks, memory_holders
from maft_lib.backends.decoding import padded
from maft_lib.backends.hub import Model, load_tokenizer, loading
from maft_lib.backends.models import cached_model, context_window, load_whole
from maft_lib.backends.rendering import IGNORED, check_text, render_conversation

LOGITS = 2**28  # numbers in the logits of one pass: 1 GiB in fp32

Turns = Sequence[tuple[str, str]]  # (role, content) of each message
Pair = tuple[list[int], list[int]]  # token ids of a prompt and of a response to it


def log_likelihoods(model: Model, items: Sequence[tuple[Turns]]) -> list[np.ndarray]:
    """Log-likelihood of each token of each conversation's final turn, end of turn included."""
    scored = []
    for ids, logits in _passes(model, [(turns[:-1], turns[-1][1]) for (turns,) in items]):
        chosen = torch.tensor(ids, device=logits.device).unsqueeze(1)
        scored.append(torch.log_softmax(logits.float(), -1).gather(1, chosen).squeeze(1).cpu().numpy())
    return scored


def divergences(model: Model, items: Sequence[tuple[Turns, Sequence[str]]]) -> list[np.ndarray]:
    """A matrix per prompt: KL(P_i || P_j) between the mean token distributions of its responses."""
    passes = _passes(model, [(asked, response) for asked, said in items for response in said])
    means = (mean_distribution(logits) for _, logits in passes)
    stacked = [torch.stack([next(means) for _ in said]) for _, said in items]
    return [divergence_matrix(logs).cpu().numpy() for logs in stacked]


def mean_distribution(logits: torch.Tensor) -> torch.Tensor:
    """Log of the next-token distribution averaged over places: (places, vocabulary) to (vocabulary,).

    In fp64, and by logarithms, so that no probability becomes 0.
    """
    return torch.log_softmax(logits.double(), -1).logsumexp(0) - np.log(len(logits))


def divergence_matrix(logs: torch.Tensor) -> torch.Tensor:
    """KL(P_i || P_j) in nats of log distributions (responses, vocabulary): (responses, responses)."""
    p = logs.exp()
    return (p * logs).sum(1, keepdim=True) - p @ logs.T


@torch.inference_mode()
def _passes(
    model: Model, texts: Sequence[tuple[Turns, str]]
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Token ids and logits (tokens, vocabulary) of every response to its prompt, in order."""
    read, window, vocabulary = _reader(model)
    tokenizer = load_tokenizer(model.folder, False, model.trust, model.template)
    pairs = [_token_ids(tokenizer, *text) for text in texts]
    for prompt, ids in pairs:
        check_text(tokenizer, prompt + ids, window, vocabulary)
    longest = max(len(prompt) + len(ids) for prompt, ids in pairs)
    rows = max(1, LOGITS // (longest * vocabulary))
    for part in chunks(pairs, rows):
        yield from zip((ids for _, ids in part), map(torch.as_tensor, read(part)))


def _reader(model: Model) -> tuple[Callable, int | None, int]:
    """What makes the logits of (prompt, response)s: the CPU kernel if it can; window and vocabulary."""
    with suppress(ImportError, RuntimeError):  # numba is missing, or has no folder for what it compiles
        if (model.device, model.dtype) == ("cpu", "float32"):
            from maft_lib.backends.cpu_decoding import kernels, response_logits

            if kernel := kernels([model], 0)[model]:
                weights = kernel.weights
                read = partial(response_logits, weights)
                return read, len(weights.rotations), len(weights.embedding)
    loaded = cached_model(model)
    embeddings: Any = loaded.get_input_embeddings()
    return partial(_logits, loaded), context_window(loaded), len(embeddings.weight)


def _logits(loaded: Any, pairs: Sequence[Pair]) -> Iterator[torch.Tensor]:
    """Logits of each response, read with its prompt; padding on the right changes nothing before it."""
    inputs, mask = padded([prompt + ids[:-1] for prompt, ids in pairs], loaded, "right")
    logits = loaded(inputs, attention_mask=mask, use_cache=False).logits
    return (logits[row, len(prompt) - 1 :][: len(ids)] for row, (prompt, ids) in enumerate(pairs))


def _token_ids(tokenizer, asked: Turns, response: str) -> tuple[list[int], list[int]]:
    """Prompt and response as token ids: by the chat template, or plainly by a model without one."""
    if tokenizer.chat_template:
        turns = [{"role": role, "content": content} for role, content in asked]
        rendered = render_conversation(tokenizer, [*turns, {"role": "assistant", "content": response}])
        start = next(i for i, label in enumerate(rendered.labels) if label != IGNORED)
        return rendered.input_ids[:start], rendered.input_ids[start:]
    # a base model, as Gemma-2 2B in the paper
    prompt = "".join(content + "\n\n" for _, content in asked)
    ids = tokenizer(response, add_special_tokens=False)["input_ids"]
    return tokenizer(prompt)["input_ids"], [*ids, tokenizer.eos_token_id]


_ENCODERS: dict[Model, tuple] = {}
memory_holders.append(_ENCODERS.clear)


@torch.inference_mode()
def embeddings(model: Model, items: Sequence[tuple[str, str]]) -> np.ndarray:
    """Vectors (texts, dimensions) in fp32; a sentence-transformers model cuts texts at its limit."""
    if model not in _ENCODERS:
        with loading(f"encoder {model.folder}"):
            _ENCODERS[model] = _load_encoder(model)
    (encoder, tokenizer), pooling = _ENCODERS[model], items[0][1]
    if tokenizer is None:
        return np.asarray(encoder.encode([text for text, _ in items]), dtype="<f4")
    # an empty text says nothing, but exists
    texts = [text if text.strip() else tokenizer.pad_token for text, _ in items]
    right: Any = {"padding": True, "padding_side": "right"}
    inputs = tokenizer(texts, return_tensors="pt", **right).to(model.device)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    window = context_window(encoder)  # T5 has none
    if window and ids.shape[1] > window:
        raise BackendError(
            f"a response of {ids.shape[1]} tokens does not fit the {window} of encoder {model.folder}: "
            "take one with a larger window, T5 for one."
        )
    states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    means = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
    return (states[:, 0] if pooling == "first" else means).cpu().numpy()


def _load_encoder(model: Model) -> tuple:
    """(encoder, tokenizer), the tokenizer None for a sentence-transformers model."""
    folder, trust = Path(model.folder), model.trust
    if (folder / "modules.json").is_file():
        from sentence_transformers import SentenceTransformer

        _check_modules(folder, trust)
        how: dict[str, Any] = {"local_files_only": True, "model_kwargs": {"use_safetensors": True}}
        return SentenceTransformer(
            model.folder, device=model.device, trust_remote_code=trust, **how
        ), None
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    kind = AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
    how = {"dtype": getattr(torch, model.dtype), "trust_remote_code": trust}
    encoder = load_whole(folder, kind, **how).to(model.device).eval()
    return encoder, load_tokenizer(model.folder, chat=False, trust=trust)


def _check_modules(folder: Path, trust: bool) -> None:
    """A sentence-transformers model says itself which classes it is made of, and where they lie."""
    for module in json.loads((folder / "modules.json").read_text(encoding="utf-8")):
        place = (folder / module["path"]).resolve()
        if not place.is_relative_to(folder.resolve()):
            raise ValueError(f"modules.json names {module['path']!r}, which lies outside")
        if not trust and not module["type"].startswith("sentence_transformers."):
            raise ValueError(f"modules.json names {module['type']!r}, which is custom code")
        if list(place.glob("*.bin")) and not list(place.glob("*.safetensors")):
            raise ValueError(f"{place} has no .safetensors file, and others can run code")
