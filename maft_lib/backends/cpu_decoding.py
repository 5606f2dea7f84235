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
from safetensors import safe_open

from maft_lib.backends import Completion, Sampling, memory_holders
from maft_lib.backends.cpu_kernel import COLUMNS, WIDTH, Weights, draw, f4, forward, tiled
from maft_lib.backends.hub import Model, base_folder, is_adapter, load_tokenizer, loading
from maft_lib.backends.rendering import check_text, stop_ids, written_text
from maft_lib.workers import run_parallel

SLOTS = 24  # texts in a thread; the keys and values of more leave its core's own memory
READ = 24  # tokens of prompts in a step, beside one of each text that is being written
KEPT = 2**30  # bytes of models, and as many of keys and values


class Kernel(NamedTuple):
    """A model for the kernel, and the tokens that end its texts."""

    weights: Weights
    ends: frozenset[int]


SIZES = (  # of a config.json
    *("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size"),
    *("num_hidden_layers", "vocab_size", "max_position_embeddings"),
)
# What positions are scaled by, and what asks for more than the kernel computes
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
ROPES: dict[str, tuple[str, ...]] = {"default": (), "linear": ("factor",), "llama3": LLAMA3}
ASKED = ("attention_bias", "mlp_bias", "quantization_config", "original_max_position_embeddings")
_kernels: dict[Model, Kernel | None] = {}
_loading = threading.Lock()


def kernels(models: Sequence[Model], num_workers: int) -> dict[Model, Kernel | None]:
    """The kernel of each model that it knows, kept in memory; workers merge adapters."""
    with _loading:
        new = {model: known_config(model) for model in models if model not in _kernels}
        adapters = [(model,) for model, config in new.items() if config and is_adapter(model.folder)]
        merged = dict(run_parallel(merged_parts, adapters, num_workers))
        parts = {model: merged[place] for place, (model,) in enumerate(adapters)}
        for model, config in new.items():
            with loading(f"model {model.folder}"):
                _kernels[model] = read_kernel(model, config, parts.get(model)) if config else None
        for model in models:
            _kernels[model] = _kernels.pop(model)  # now the last used
        while len(_kernels) > len(models) and sum(map(_num_bytes, _kernels.values())) > KEPT:
            del _kernels[next(iter(_kernels))]
        return {model: _kernels[model] for model in models}


def _num_bytes(kernel: Kernel | None) -> int:
    parts = kernel.weights if kernel else ()
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


def known_config(model: Model) -> dict | None:
    """A model's config.json with `rope`; None if it asks for what the kernel does not compute.

    None, too, where a size is left to the defaults of transformers, which is not imported here, and
    where a value makes no sense, which transformers says.
    """
    with loading(f"model {model.folder}"):
        config = json.loads((Path(model.folder) / "config.json").read_text(encoding="utf-8"))
    try:
        kind = config.get("model_type")
        scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
        rope = {"rope_type": scaling.get("type", "default"), "rope_theta": config.get("rope_theta")}
        config["rope"] = rope = rope | scaling
        hidden, heads, shared, inner, *others = (config[name] for name in SIZES)
        config["head_dim"] = width = config.get("head_dim") or hidden // heads
        columns = (width * (heads + 2 * shared), hidden, inner)
        known = (
            kind in ("llama", "mistral", "qwen2")
            and config["hidden_act"] == "silu"
            and all(rope[name] > 0 for name in ("rope_theta", *ROPES[rope["rope_type"]]))
            and min(config.get("rms_norm_eps", 1e-6), *columns, *others) > 0
            and not (width % WIDTH or any(n % COLUMNS for n in columns))
        )
        unknown = (
            any(config.get(name) for name in ASKED)
            or any(part.get("partial_rotary_factor", 1) != 1 for part in (config, rope))
            or not config.get("is_causal", True)
            or (
                (kind == "mistral" or config.get("use_sliding_window"))
                and config.get("sliding_window", True)
            )
            or (model.trust and "auto_map" in config)
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None
    return config if known and not unknown else None


def merged_parts(model: Model) -> dict[str, np.ndarray]:
    """The weights of an adapter's base with the adapter in them."""
    from maft_lib.backends.models import load_model

    loaded = load_model(model.folder, model.dtype, model.device, model.trust)
    return {name: part.detach().numpy() for name, part in loaded.named_parameters()}


def _parts(folder: Path) -> dict[str, np.ndarray]:
    """The weights in a folder's safetensors, in fp32; PyTorch reads those that NumPy cannot."""
    paths, parts = [folder / "model.safetensors"], {}
    if (index := folder / "model.safetensors.index.json").is_file() and not paths[0].is_file():
        paths = sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
    for path in filter(Path.is_file, paths):
        with safe_open(path, "np") as file:
            names = [*file.keys()]
            plain = {file.get_slice(name).get_dtype() for name in names} <= {"F32", "F16"}
        with safe_open(path, "np" if plain else "pt") as file:
            for name in names:
                part = file.get_tensor(name)
                parts[name] = np.asarray(part if plain else part.float(), f4)
    return parts


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """The weights of a model by its config."""
    hidden, heads, shared, inner, num, vocabulary, _ = (config[name] for name in SIZES)
    width, biased = config["head_dim"], config["model_type"] == "qwen2"
    whole = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not config.get("tie_word_embeddings", False):
        whole["lm_head.weight"] = (vocabulary, hidden)
    layer: dict[str, tuple[int, ...]] = {
        f"{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")
    }
    for name, rows in (("q", heads * width), ("k", shared * width), ("v", shared * width)):
        layer[f"self_attn.{name}_proj.weight"] = rows, hidden
        layer |= {f"self_attn.{name}_proj.bias": (rows,)} if biased else {}
    layer |= {
        "self_attn.o_proj.weight": (hidden, heads * width),
        "mlp.down_proj.weight": (hidden, inner),
    }
    layer |= {f"mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
    layers = {f"model.layers.{i}.{name}": shape for i in range(num) for name, shape in layer.items()}
    return {**whole, **layers}


def read_kernel(
    model: Model, config: dict, parts: dict[str, np.ndarray] | None = None
) -> Kernel | None:
    """Lays out a model's weights; None where they are not what its config says or not finite.

    Such a model is left to transformers, which says what is wrong.
    """
    folder = base_folder(model.folder) if parts else Path(model.folder)
    parts, path = parts or _parts(folder), folder / "generation_config.json"
    ends = (json.loads(path.read_text()) if path.is_file() else config).get("eos_token_id")
    wanted = shapes(config)
    if {name: parts[name].shape for name in wanted if name in parts} != wanted:
        return None
    if ("lm_head.weight" in parts) > ("lm_head.weight" in wanted):  # tied, or not?
        return None
    if not all(np.isfinite(parts[name]).all() for name in wanted):
        return None
    num, width = config["num_hidden_layers"], config["head_dim"]

    def joined(layer: int, names: str, part: str = "weight") -> np.ndarray:
        """Parts of a layer's matrices or biases, one after the other; queries are scaled."""
        found = [parts[f"model.layers.{layer}.{name}.{part}"] for name in names.split()]
        return np.concatenate([found[0] * width**-0.5, *found[1:]] if len(found) == 3 else found)

    def layers(names: str, norm: str = "") -> np.ndarray:
        """The matrices of all layers, each multiplied by the norm before it."""
        matrices = (joined(i, names) for i in range(num))
        norms = (joined(i, norm) if norm else f4(1) for i in range(num))
        return np.stack([tiled(matrix * norm) for matrix, norm in zip(matrices, norms)])

    attention = "self_attn.q_proj self_attn.k_proj self_attn.v_proj"
    embedding = parts["model.embed_tokens.weight"]
    bias = [np.zeros(len(joined(0, attention)), f4)] * num
    if "model.layers.0.self_attn.q_proj.bias" in wanted:
        bias = [joined(i, attention, "bias") for i in range(num)]
    weights = Weights(
        embedding=embedding,
        attention=layers(attention, "input_layernorm"),
        bias=np.stack(bias),
        output=layers("self_attn.o_proj"),
        gates=layers("mlp.gate_proj mlp.up_proj", "post_attention_layernorm"),
        down=layers("mlp.down_proj"),
        head=tiled(parts.get("lm_head.weight", embedding) * parts["model.norm.weight"]),
        rotations=rotations(config["rope"], width, config["max_position_embeddings"]),
        heads=config["num_attention_heads"],
        epsilon=f4(config.get("rms_norm_eps", 1e-6)),
    )
    return Kernel(
        weights, frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
    )


def rotations(rope: dict, width: int, num: int) -> np.ndarray:
    """Cosines, then sines, of each position (num, width), in fp32 but for the functions themselves."""
    exponents = np.arange(0, width, 2, dtype=f4) / f4(width)
    frequencies = 1 / (rope["rope_theta"] ** exponents.astype(float)).astype(f4)
    if rope["rope_type"] == "linear":
        frequencies /= f4(rope["factor"])
    if rope["rope_type"] == "llama3":  # long waves are stretched, short ones stay
        turns = rope["original_max_position_embeddings"] * frequencies / (2 * np.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        kept = np.clip((turns - low) / (high - low), 0, 1)
        frequencies = (frequencies * (kept + (1 - kept) / rope["factor"])).astype(f4)
    angles = (np.arange(num, dtype=f4)[:, None] * frequencies).astype(float)
    return np.concatenate([np.cos(angles), np.sin(angles)], 1).astype(f4)


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


def response_logits(weights: Weights, pairs: Sequence[tuple[list[int], list[int]]]) -> list[np.ndarray]:
    """Logits (tokens, vocabulary) of each response to its prompt, token ids both.

    What begins as the text before did goes on from there.
    """
    compile_kernel(weights)
    texts = [(*prompt, *ids[:-1]) for prompt, ids in pairs]
    decoder, before = Decoder("", weights, 1, max(map(len, texts))), tuple[int, ...]()
    found: dict[int, np.ndarray] = {}
    for i in sorted(range(len(texts)), key=texts.__getitem__):
        last = len(pairs[i][0]) - 1  # of the prompt: what follows it is the first to be judged
        read, before = min(_shared(before, texts[i]), last), texts[i]
        rows = [(token, 0, read + place) for place, token in enumerate(texts[i][read:])]
        steps = np.array(rows, np.int32), np.arange(last - read, len(rows), dtype=np.int32)
        logits = forward(weights, decoder.keys, decoder.values, *steps)
        found[i] = logits[:, : len(weights.embedding)]
    return [found[i] for i in range(len(texts))]


def compile_kernel(weights: Weights) -> None:
    """Has numba compile the kernel, or load what it has kept, before threads need it."""
    with _loading:
        if forward.signatures:
            return
        line = "Compiling the CPU kernel with numba: some ten seconds, once on this machine."
        timer = threading.Timer(3, print, [line])  # it loads in less
        timer.start()
        decoder = Decoder("", weights, 1, 1)
        decoder.begin(Text(0, [0], 1, np.random.default_rng(0)))
        decoder.step(Sampling())
        timer.cancel()
