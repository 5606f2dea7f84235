"""Forward passes over finished text with one model. Runs in the workers; knows no debates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
    PreTrainedModel,
)

from maft_lib.backends import BackendError, chunks, models
from maft_lib.backends.cache import growing_cache
from maft_lib.backends.hub import Model, cannot_load, load_tokenizer
from maft_lib.backends.rendering import IGNORED, render_conversation
from maft_lib.prompts import Message

LOGITS = 2**28  # numbers in the logits of one pass: 1 GiB in fp32
TOKENS = 2**15  # read in one pass: their keys and values are some GB for a model of billions
PLACES = 256  # of a response, whose distributions are added up at a time


class Group(NamedTuple):
    """A prompt as token ids, and the responses that follow it."""

    prompt: list[int]
    responses: list[list[int]]


def likelihoods(
    model: Model, prompts: Sequence[list[Message]], responses: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """Log-likelihood of each token of each response, end of turn included; prompts' in their order."""
    groups = _rendered(model, prompts, responses)
    scored = (_of_tokens(logits, ids) for _, ids, logits in _passes(model, groups))
    return [tokens.cpu().numpy() for tokens in scored]


def divergences(
    model: Model, prompts: Sequence[list[Message]], responses: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """A matrix per prompt: KL(P_i || P_j) between the mean token distributions of its responses."""
    groups = _rendered(model, prompts, responses)
    means: list[list[torch.Tensor]] = [[] for _ in groups]
    for place, _, logits in _passes(model, groups):
        means[place].append(mean_distribution(logits))
    return [divergence_matrix(torch.stack(own)).cpu().numpy() for own in means]


def mean_distribution(logits: torch.Tensor) -> torch.Tensor:
    """Log of the next-token distribution averaged over places: (places, vocabulary) to (vocabulary,).

    In fp64, and by logarithms, so that no probability becomes 0.
    """
    sums = [torch.log_softmax(part.double(), -1).logsumexp(0) for part in logits.split(PLACES)]
    return torch.stack(sums).logsumexp(0) - np.log(len(logits))


def divergence_matrix(logs: torch.Tensor) -> torch.Tensor:
    """KL(P_i || P_j) in nats of log distributions (responses, vocabulary): (responses, responses)."""
    p = logs.exp()
    return (p * logs).sum(1, keepdim=True) - p @ logs.T


def _of_tokens(logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
    chosen = torch.tensor(ids, device=logits.device).unsqueeze(1)
    return torch.log_softmax(logits.float(), dim=-1).gather(1, chosen).squeeze(1)


@torch.inference_mode()
def _passes(model: Model, groups: Sequence[Group]) -> Iterator[tuple[int, list[int], torch.Tensor]]:
    """(place of its prompt, token ids, logits (tokens, vocabulary)) of every response, in order.

    Prompts are read once; their keys and values are then repeated for each response.
    """
    loaded = models.cached_model(model)
    longest = max(len(ids) for group in groups for ids in group.responses)
    rows = max(len(group.responses) for group in groups)
    whole = longest + max(len(group.prompt) for group in groups)
    config = loaded.config.get_text_config()
    window = getattr(config, "max_position_embeddings", None) or whole
    if whole > window:
        raise BackendError(
            f"a text of {whole} tokens does not fit the {window} of {model.folder}: score it with a "
            "model of a larger window."
        )
    size = max(1, min(LOGITS // (longest * rows * config.vocab_size), TOKENS // (rows * whole)))
    for start, part in zip(range(0, len(groups), size), chunks(groups, size)):
        for place, ids, logits in _pass(loaded, part):
            yield start + place, ids, logits


def _pass(
    loaded: PreTrainedModel, groups: Sequence[Group]
) -> Iterator[tuple[int, list[int], torch.Tensor]]:
    device, pad = loaded.device, loaded.config.get_text_config().pad_token_id or 0
    prompts = [group.prompt for group in groups]
    places = [place for place, group in enumerate(groups) for _ in group.responses]
    responses = [ids for group in groups for ids in group.responses]
    inputs, mask = _padded(prompts, pad, left=True, device=device)
    cache = growing_cache(loaded.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    keywords = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache}
    first = loaded(input_ids=inputs, use_cache=True, logits_to_keep=1, **keywords).logits
    # The last token of a response predicts nothing that is asked for.
    following, own = _padded([ids[:-1] for ids in responses], pad, left=False, device=device)
    repeated = torch.tensor(places, device=device)
    logits = first[repeated]
    if following.shape[1]:
        cache.batch_select_indices(repeated)
        mask = torch.cat([mask[repeated], own], dim=1)
        positions = (mask.cumsum(1) - 1)[:, -following.shape[1] :].clamp(min=0)
        keywords = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache}
        rest = loaded(input_ids=following, use_cache=True, **keywords).logits
        logits = torch.cat([logits, rest], dim=1)
    for row, (place, ids) in enumerate(zip(places, responses)):
        yield place, ids, logits[row, : len(ids)]


def _padded(
    rows: Sequence[list[int]], pad: int, left: bool, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (rows, longest) padded on one side, and the mask of what is no padding."""
    longest = max(map(len, rows))
    fill = [longest - len(row) for row in rows]
    ids = [[pad] * n + row if left else row + [pad] * n for row, n in zip(rows, fill)]
    mask = [[0] * n + [1] * len(r) if left else [1] * len(r) + [0] * n for r, n in zip(rows, fill)]
    return torch.tensor(ids, device=device, dtype=torch.long), torch.tensor(mask, device=device)


def _rendered(
    model: Model, prompts: Sequence[list[Message]], responses: Sequence[Sequence[str]]
) -> list[Group]:
    """Prompts and responses as token ids: by the chat template, or plainly by a model without one."""
    tokenizer = load_tokenizer(model.folder, chat=False, trust=model.trust)
    groups = []
    for prompt, own in zip(prompts, responses):
        pairs = [_split(tokenizer, prompt, response) for response in own]
        groups.append(Group(pairs[0][0], [ids for _, ids in pairs]))
    return groups


def _split(tokenizer, prompt: list[Message], response: str) -> tuple[list[int], list[int]]:
    if not tokenizer.chat_template:  # a base model, as Gemma-2 2B in the paper
        asked = "\n\n".join(message["content"] for message in prompt) + "\n\n"
        if tokenizer.eos_token_id is None:
            raise BackendError("a scorer without a chat template needs an end-of-sequence token.")
        ids = tokenizer(response, add_special_tokens=False)["input_ids"]
        return tokenizer(asked)["input_ids"], [*ids, tokenizer.eos_token_id]
    turns = [*prompt, {"role": "assistant", "content": response}]
    rendered = render_conversation(tokenizer, turns)
    start = next(i for i, label in enumerate(rendered.labels) if label != IGNORED)
    return rendered.input_ids[:start], rendered.input_ids[start:]


# --- embeddings ----------------------------------------------------------------------------------

_ENCODERS: dict[Model, tuple] = {}


@torch.inference_mode()
def embeddings(model: Model, texts: Sequence[str], pooling: str) -> np.ndarray:
    """Vectors (texts, dimensions) in fp32; a sentence-transformers model cuts texts at its limit."""
    encoder, tokenizer = _encoder(model)
    if tokenizer is None:
        return np.asarray(encoder.encode(list(texts), batch_size=len(texts)), dtype="<f4")
    texts = [
        text if text.strip() else tokenizer.pad_token for text in texts
    ]  # says nothing, but exists
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    window = getattr(encoder.config, "max_position_embeddings", None)  # T5 has none
    if window and inputs["input_ids"].shape[1] > window:
        raise BackendError(
            f"a response of {inputs['input_ids'].shape[1]} tokens does not fit the {window} of encoder "
            f"{model.folder}: take one with a larger window, T5 for one."
        )
    inputs = {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
    states = encoder(**inputs).last_hidden_state.float()
    mask = inputs["attention_mask"].unsqueeze(-1)
    pooled = states[:, 0] if pooling == "first" else (states * mask).sum(1) / mask.sum(1)
    if pooling == "first" and len(set(texts)) > 1 and bool((pooled == pooled[0]).all()):
        raise BackendError(
            f"every text begins with the same token for {model.folder}, which has read nothing else "
            "then: use pooling: mean."
        )
    return pooled.cpu().numpy().astype("<f4")


def _encoder(model: Model) -> tuple:
    """(encoder, tokenizer), the tokenizer None for a sentence-transformers model, kept in memory."""
    if model not in _ENCODERS:
        try:
            _ENCODERS[model] = _load_encoder(model)
        except Exception as error:  # damaged or missing weights surface as many kinds of errors
            raise cannot_load(f"encoder {model.folder}", error) from error
    return _ENCODERS[model]


def _load_encoder(model: Model) -> tuple:
    if (Path(model.folder) / "modules.json").is_file():
        from sentence_transformers import SentenceTransformer

        _check_modules(Path(model.folder), model.trust)
        how: dict[str, Any] = {"local_files_only": True, "trust_remote_code": model.trust}
        safe = {"use_safetensors": True}
        return SentenceTransformer(model.folder, device=model.device, model_kwargs=safe, **how), None
    config = AutoConfig.from_pretrained(model.folder, trust_remote_code=model.trust)
    has_encoder = type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING
    kind: Any = AutoModelForTextEncoding if has_encoder else AutoModel
    dtype = getattr(torch, model.dtype)
    how = {"use_safetensors": True, "trust_remote_code": model.trust}
    encoder, found = kind.from_pretrained(model.folder, dtype=dtype, output_loading_info=True, **how)
    absent = [name for name in found["missing_keys"] if "pooler" not in name]  # which is not used
    if absent:
        raise BackendError(f"its weights lack {sorted(absent)[0]}.")
    tokenizer = AutoTokenizer.from_pretrained(
        model.folder, padding_side="right", trust_remote_code=model.trust
    )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return encoder.to(model.device).eval(), tokenizer


def _check_modules(folder: Path, trust: bool) -> None:
    """A sentence-transformers model says itself which classes it is made of, and where they lie."""
    for module in json.loads((folder / "modules.json").read_text(encoding="utf-8")):
        place = (folder / module["path"]).resolve()
        if not place.is_relative_to(folder.resolve()):
            raise BackendError(f"modules.json names {module['path']!r}, which lies outside.")
        if not trust and not module["type"].startswith("sentence_transformers."):
            raise BackendError(f"modules.json names {module['type']!r}, which is custom code.")
        if list(place.glob("*.bin")) and not list(place.glob("*.safetensors")):
            raise BackendError(f"{place} has no .safetensors file, and others can run code.")
