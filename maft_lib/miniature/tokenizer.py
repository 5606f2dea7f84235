"""The tokenizer of the miniature model: frequent words whole, digits single, bytes for the rest.

Nothing is unknown to it: a word outside its vocabulary falls apart into bytes, so every text makes
the round trip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")

# One piece is a LaTeX command with its brace, a digit, a word with the space before it, punctuation
# with the space after it, or another single character.
PIECE = r"\\[A-Za-z]+\{?|[0-9]| ?[A-Za-z]+|[.,:;?!]+ ?|[^\sA-Za-z0-9]|\s+"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer(texts: Iterable[str], min_count: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary is every piece found at least `min_count` times, and the bytes."""
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts = Counter(piece for text in texts for piece, _ in split.pre_tokenize_str(text))
    frequent = sorted(piece for piece, count in counts.items() if count >= min_count)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = list(dict.fromkeys([*SPECIAL_TOKENS, *alphabet, *frequent]))
    # With ignore_merges a piece of the vocabulary is one token; with no merges any other is bytes.
    model = models.BPE(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], ignore_merges=True
    )
    tokenizer = Tokenizer(model)
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
