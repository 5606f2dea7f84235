"""Decodes on a CPU with the kernel: each thread has some slots, which texts take in turn.

What a model has read is remembered: equal prompts are read once, and a critic's conversation goes on
from where the agent's first answer ended. Models that the kernel does not know are decoded by
transformers (`decoding`), to the same texts.
"""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect, insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maft_lib.backends import Completion, Sampling, memory_holders
from maft_lib.backends.cpu_kernel import COLUMNS, WIDTH, Weights, draw, f4, forward, tiled
from maft_lib.backends.hub import Model, load_tokenizer, loading
from maft_lib.backends.rendering import check_text, stop_ids, written_text
from maft_lib.workers import run_parallel

SLOTS = 24  # texts in a thread; the keys and values of more leave its core's own memory
READ = 24  # tokens of prompts in a step, beside one of each text that is being written
KEPT = 2**30  # bytes of models, and as many of keys and values


class Kernel(NamedTuple):
    """A model for the kernel, and the tokens that end its texts."""

    weights: Weights
    ends: frozenset[int]


_kernels: dict[Model, Kernel | None] = {}
_loading = threading.Lock()


def kernels(models: Sequence[Model], num_workers: int) -> dict[Model, Kernel | None]:
    """The kernel of each model that it knows, kept in memory; workers have PyTorch and read them."""
    with _loading:
        new = [(model,) for model in models if model not in _kernels]
        for place, kernel in run_parallel(read_kernel, new, num_workers):
            _kernels[new[place][0]] = kernel
        for model in models:
            _kernels[model] = _kernels.pop(model)  # now the last used
        while len(_kernels) > len(models) and sum(map(_num_bytes, _kernels.values())) > KEPT:
            del _kernels[next(iter(_kernels))]
        return {model: _kernels[model] for model in models}


def _num_bytes(kernel: Kernel | None) -> int:
    parts = kernel.weights if kernel else ()
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


def read_kernel(model: Model) -> Kernel | None:
    """Loads a model with transformers and lays out its weights; None for one it does not know."""
    import torch

    from maft_lib.backends.models import declared_stops, load_model

    with loading(f"model {model.folder}"):
        kind = json.loads((Path(model.folder) / "config.json").read_text()).get("model_type")
    if kind not in ("llama", "mistral", "qwen2"):  # which need not be loaded here
        return None
    loaded = load_model(model.folder, model.dtype, model.device, model.trust)
    if not _knows(loaded):
        return None
    config, parts = loaded.config, {n: part.detach().numpy() for n, part in loaded.named_parameters()}
    positions = torch.arange(config.max_position_embeddings).unsqueeze(0)
    cosines, sines = (wave[0].numpy() for wave in loaded.model.rotary_emb(torch.zeros(1), positions))
    width = cosines.shape[1]

    def joined(layer: int, names: str, part: str = "weight") -> np.ndarray:
        """Parts of a layer's matrices or biases, one after the other; queries are scaled."""
        found = [parts[f"model.layers.{layer}.{name}.{part}"] for name in names.split()]
        return np.concatenate([found[0] * width**-0.5, *found[1:]] if len(found) == 3 else found)

    def layers(names: str, norm: str = "") -> np.ndarray:
        """The matrices of all layers, each multiplied by the norm before it."""
        matrices = (joined(i, names) for i in range(config.num_hidden_layers))
        norms = (joined(i, norm) if norm else f4(1) for i in range(config.num_hidden_layers))
        return np.stack([tiled(matrix * norm) for matrix, norm in zip(matrices, norms)])

    attention = "self_attn.q_proj self_attn.k_proj self_attn.v_proj"
    embedding, numbers = parts["model.embed_tokens.weight"], range(config.num_hidden_layers)
    bias = [np.zeros(len(joined(0, attention)), f4) for _ in numbers]
    if "model.layers.0.self_attn.q_proj.bias" in parts:
        bias = [joined(i, attention, "bias") for i in numbers]
    weights = Weights(
        embedding=embedding,
        attention=layers(attention, "input_layernorm"),
        bias=np.stack(bias),
        output=layers("self_attn.o_proj"),
        gates=layers("mlp.gate_proj mlp.up_proj", "post_attention_layernorm"),
        down=layers("mlp.down_proj"),
        head=tiled(parts.get("lm_head.weight", embedding) * parts["model.norm.weight"]),
        rotations=np.concatenate([cosines[:, : width // 2], sines[:, : width // 2]], 1),
        heads=config.num_attention_heads,
        epsilon=f4(config.rms_norm_eps),
    )
    return Kernel(weights, frozenset(declared_stops(loaded)))


def _knows(loaded: Any) -> bool:
    """Whether the kernel computes all that a model does, and its sizes fit the kernel's vectors."""
    from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM

    config = loaded.config
    if type(loaded) not in (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM):
        return False
    known = ("weight", "q_proj.bias", "k_proj.bias", "v_proj.bias")
    parts = loaded.named_parameters()
    if any(part.element_size() != 4 or not name.endswith(known) for name, part in parts):
        return False
    width = loaded.model.layers[0].self_attn.head_dim
    attention = width * (config.num_attention_heads + 2 * config.num_key_value_heads)
    return (
        config.hidden_act == "silu"
        and not getattr(config, "sliding_window", None)
        and config.rope_parameters["rope_type"] in ("default", "linear", "llama3")
        and width % WIDTH == 0
        and not any(n % COLUMNS for n in (attention, config.hidden_size, config.intermediate_size))
    )


class Remembered:
    """Keys and values of texts that models have read; a text is (model, *tokens)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forgets all."""
        self._texts: list[tuple] = []  # sorted, so that what begins alike lies side by side
        self._states: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
        self._num_bytes = 0

    def longest(self, text: tuple) -> tuple[int, Any]:
        """How many of the text's first tokens are those of another one, and that one's states."""
        with self._lock:
            place = bisect(self._texts, text)
            beside = self._texts[max(0, place - 1) : place + 1]
            shared, other = max(((_shared(text, other), other) for other in beside), default=(0, ()))
            return max(0, shared - 1), self._states.get(other)

    def keep(self, text: tuple, keys: np.ndarray, values: np.ndarray) -> None:
        """Remembers a text; where there is no room, instead of all others."""
        with self._lock:
            if text in self._states:
                return
            if self._num_bytes > KEPT:
                self.clear()
            self._num_bytes += keys.nbytes + values.nbytes
            self._states[text] = keys, values
            insort(self._texts, text)


def _shared(one: tuple, other: tuple) -> int:
    """The length of the beginning that two texts share."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


remembered = Remembered()
memory_holders += [_kernels.clear, remembered.clear]


@dataclass(eq=False)
class Text:
    """A response in progress: `tokens` of the prompt and what is written, of which `read` are cached.

    `row` is its place in the batch. Its `twins` have the same prompt and begin when that is read.
    """

    row: int
    tokens: list[int]
    limit: int  # of tokens
    uniform: np.random.Generator
    slot: int = 0
    read: int = 0
    twins: list[Text] = field(default_factory=list)


class Decoder:
    """The slots of a thread, for texts of one model: their cache, and a step of all of them."""

    def __init__(self, identity: str, weights: Weights, num: int, longest: int):
        self.identity, self.weights = identity, weights
        self.free, self.texts = [*range(num)], list[Text]()
        layers, attention = weights.bias.shape
        width = (attention - weights.heads * weights.rotations.shape[1]) // 2
        blocks = -(-longest // WIDTH)
        self.keys = np.empty((num, layers, blocks, width, WIDTH), f4)
        self.values = np.empty((num, layers, blocks * WIDTH, width), f4)

    def begin(self, text: Text) -> None:
        """Gives a text a slot, and what is remembered of its prompt; the last token is always read."""
        self.texts.append(text)
        text.slot = slot = self.free.pop()
        text.read, states = remembered.longest((self.identity, *text.tokens[:-1]))
        if text.read:
            blocks = -(-text.read // WIDTH)
            self.keys[slot, :, :blocks] = states[0][:, :blocks]
            self.values[slot, :, : text.read] = states[1][:, : text.read]

    def remember(self, text: Text) -> None:
        """Remembers what was read of a text."""
        keys = self.keys[text.slot, :, : -(-text.read // WIDTH)].copy()
        values = self.values[text.slot, :, : text.read].copy()
        remembered.keep((self.identity, *text.tokens[: text.read]), keys, values)

    def end(self, text: Text) -> None:
        """Remembers a text and frees its slot."""
        self.remember(text)
        self.texts.remove(text)
        self.free.append(text.slot)

    def step(self, sampling: Sampling) -> list[Text]:
        """Reads some of what is unread, and draws a token for the texts that are read: these."""
        rows, last, drawn, room = [], [], [], READ
        for text in self.texts:
            unread = len(text.tokens) - text.read
            num = 1 if unread == 1 else min(unread, room)
            room -= num if unread > 1 else 0
            ahead = range(text.read, text.read + num)
            rows += [(text.tokens[position], text.slot, position) for position in ahead]
            text.read += num
            if num and num == unread:
                last.append(len(rows) - 1)
                drawn.append(text)
        steps = np.array(rows, np.int32), np.array(last, np.int32)
        logits = forward(self.weights, self.keys, self.values, *steps)
        uniform = np.array([text.uniform.random() for text in drawn])
        how = len(self.weights.embedding), float(sampling.temperature), float(sampling.top_p)
        for text, token in zip(drawn, draw(logits, *how, uniform).tolist()):
            text.tokens.append(token)
        return drawn


def stream_texts(
    model: Model,
    weights: Weights,
    ends: frozenset[int],
    prompts: Sequence[str],
    sampling: Sampling,
    seeds: Sequence[int],
    num_slots: int,
    aloud: bool,
) -> Iterator[list[tuple[int, Completion | str]]]:
    """Yields after each step the rows that have ended with it, and `aloud` the texts so far of all."""
    tokenizer = load_tokenizer(model.folder, trust=model.trust, template=model.template)
    stops, window = stop_ids(tokenizer, ends), len(weights.rotations)
    ids = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    texts: dict[tuple, Text] = {}
    for row, (tokens, seed) in enumerate(zip(ids, seeds)):
        check_text(tokenizer, tokens, window, len(weights.embedding), 1)
        limit = min(len(tokens) + sampling.max_tokens, window)
        text = Text(row, [*tokens], limit, np.random.default_rng(seed))
        first = texts.setdefault(tuple(tokens), text)
        first.twins += [text] if text is not first else []
    waiting, last = deque(texts.values()), time.thread_time()
    decoder = Decoder(model.identity, weights, min(num_slots, len(ids)), max(t.limit for t in waiting))
    while waiting or decoder.texts:
        while waiting and decoder.free:
            decoder.begin(waiting.popleft())
        news: list[tuple[int, Completion | str]] = []
        for text in decoder.step(sampling):
            if text.twins:
                decoder.remember(text)
                waiting.extendleft(text.twins)
                text.twins = []
            num, written = len(ids[text.row]), text.tokens[len(ids[text.row]) :]
            stopped = written[-1] in stops
            ended = stopped or len(text.tokens) == text.limit
            if not aloud and not ended:
                continue
            whole = written[:-1] if stopped else written
            said = written_text(tokenizer, whole, prompts[text.row])
            if aloud:  # without the first bytes of a character that is not whole
                news.append((text.row, said if stopped else said.rstrip("\ufffd")))
            if ended:
                decoder.end(text)
                began, last = last, time.thread_time()
                reason = "stop" if stopped else "length"
                done = Completion(said, num, len(written), reason, seconds=last - began)
                news.append((text.row, done))
        yield news


def compile_kernel(weights: Weights) -> None:
    """Has numba compile the kernel, or load what it has kept, before threads need it."""
    if forward.signatures:
        return
    line = "Compiling the CPU kernel with numba: some ten seconds, once on this machine."
    timer = threading.Timer(3, print, [line])  # it loads in less
    timer.start()
    decoder = Decoder("", weights, 1, 1)
    decoder.begin(Text(0, [0], 1, np.random.default_rng(0)))
    decoder.step(Sampling())
    timer.cancel()
