"""Pretrains the miniature language model from its seed, as `notebooks/Z_miniature_model.ipynb` tells.

Everything that is random comes from the seed, so the same seed, thread count, processor type and
package versions give the same bytes.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from maft_lib.backends.rendering import IGNORED, Rendered, render_conversation
from maft_lib.miniature.corpus import shard

SHIPPED = Path(__file__).with_name("model")
GROUP = 4000  # conversations that are sorted by length together, four shards after four shards
SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")

# One piece is a LaTeX command with its brace, a digit, a word with the space before it, punctuation
# with the space after it, or another single character.
PIECE = r"\\[A-Za-z]+\{?|[0-9]| ?[A-Za-z]+|[.,:;?!]+ ?|[^\sA-Za-z0-9]|\s+"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """How the shipped model was made; learning rates at their peak."""

    seed: int = 0
    num_shards: int = 64  # of 1,000 conversations each, about 187 tokens a conversation
    num_more_shards: int = 36  # after these, with the learning rates begun anew
    hidden_size: int = 128
    intermediate_size: int = 384
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    head_dim: int = 16
    tokens_per_batch: int = 4096
    muon_learning_rate: float = 4e-3
    adamw_learning_rate: float = 3e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    num_threads: int = 1


def make_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """A tokenizer of the bytes and of every piece found 25 times in the first 20 shards of the corpus.

    Frequent words are whole, digits single. A word outside its vocabulary falls apart into bytes, so
    every text makes the round trip.
    """
    pieces = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Sequence([pieces, to_bytes])
    shards = (shard(recipe.seed, index) for index in range(min(20, recipe.num_shards)))
    texts = (message["content"] for part in shards for _, turns in part for message in turns)
    counts = Counter(piece for text in texts for piece, _ in split.pre_tokenize_str(text))
    frequent = sorted(piece for piece, count in counts.items() if count >= 25)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*SPECIAL_TOKENS, *alphabet, *frequent])
    # With ignore_merges a piece of the vocabulary is one token; with no merges any other is bytes.
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",  # no password  # nosec B106
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def make_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model, its weights drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    shape = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")
    config = LlamaConfig(
        **{name: getattr(recipe, name) for name in shape},
        num_key_value_heads=recipe.num_attention_heads,
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def render_corpus(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, more: bool = False
) -> list[Rendered]:
    """The first shards of the corpus, or `more` after them, with the loss on all assistant turns."""
    num = recipe.num_shards
    numbers = range(num, num + recipe.num_more_shards) if more else range(num)
    shards = (shard(recipe.seed, index) for index in numbers)
    turns = (conversation for part in shards for _, conversation in part)
    return [render_conversation(tokenizer, conversation, "all_turns") for conversation in turns]


def batches(corpus: Sequence[Rendered], recipe: Recipe) -> list[list[int]]:
    """Indices of the conversations of each batch: one epoch, alike in length, in random order."""
    rng = random.Random(recipe.seed)
    lengths = [len(rendered.input_ids) for rendered in corpus]
    result: list[list[int]] = []
    for start in range(0, len(corpus), GROUP):
        part: list[list[int]] = []
        for index in sorted(range(len(corpus))[start : start + GROUP], key=lengths.__getitem__):
            if part and lengths[index] * (len(part[-1]) + 1) <= recipe.tokens_per_batch:
                part[-1].append(index)
            else:
                part.append([index])
        result += rng.sample(part, len(part))
    return result


def completion_loss(model: LlamaForCausalLM, rows: Sequence[Rendered]) -> torch.Tensor:
    """Mean negative log-likelihood of the labelled tokens, in nats per token."""
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    inputs = pad([torch.tensor(row.input_ids) for row in rows])
    labels = pad([torch.tensor(row.labels) for row in rows], padding_value=IGNORED)[:, 1:]
    hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), labels[wanted])


def train(
    model: LlamaForCausalLM, corpus: Sequence[Rendered], recipe: Recipe, num_steps: int | None = None
) -> Iterator[float]:
    """Trains the model in place, one step a batch, and yields each step's loss.

    `num_steps` is the length of the learning-rate schedule, where `corpus` is only a part of it.
    """
    torch.set_num_threads(recipe.num_threads)
    order = batches(corpus, recipe)

    def share_of_peak(step: int) -> float:  # linear warm-up, then a cosine to 2 % of the peak
        cosine = 0.5 * (1 + math.cos(math.pi * step / (num_steps or len(order))))
        return min(1.0, (step + 1) / recipe.warmup_steps) * (0.02 + 0.98 * cosine)

    named = dict(model.named_parameters())
    matrices = {n: p for n, p in named.items() if p.ndim == 2 and "embed_tokens" not in n}
    rest = [p for n, p in named.items() if n not in matrices]
    peak, decay = recipe.muon_learning_rate, recipe.weight_decay
    muon = torch.optim.Muon(matrices.values(), peak, decay, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, recipe.adamw_learning_rate, (0.9, 0.98), weight_decay=0.0)
    optimizers = (muon, adamw)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, share_of_peak) for o in optimizers]
    for batch in order:
        loss = completion_loss(model, [corpus[i] for i in batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        yield loss.item()


def pretrain(recipe: Recipe, folder: Path) -> list[float]:
    """Makes the whole model into `folder`, an ordinary model directory; returns the losses."""
    tokenizer = make_tokenizer(recipe)
    model = make_model(recipe, tokenizer)
    corpora = (render_corpus(recipe, tokenizer, more) for more in (False, True))
    cycles = [list(train(model, corpus, recipe)) for corpus in corpora]
    losses = [loss for cycle in cycles for loss in cycle]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    log = {"recipe": asdict(recipe), "num_steps": list(map(len, cycles))}
    log["losses"] = [round(loss, 5) for loss in losses]
    (folder / "pretraining.json").write_text(json.dumps(log) + "\n")
    return losses
