"""Messages to token ids, one way for inference and for training. Knows chat templates, no models.

Finetuning must see a prompt exactly as inference will render it; so both call `render_prompt`, and
`render_conversation` checks that the prompt's ids are a prefix of the whole conversation's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from maft_lib.backends import BackendError
from maft_lib.prompts import Message
from maft_lib.wording import one_line

IGNORED = -100  # the label that PyTorch's cross entropy skips


class Rendered(NamedTuple):
    """A conversation as token ids, with `labels` equal to the ids where the loss is taken."""

    input_ids: list[int]
    labels: list[int]


def prompt_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The text of a conversation up to where the assistant is to speak, by the chat template."""
    return _text(tokenizer, messages, add_generation_prompt=True)


def tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of rendered text; the template has written the special tokens already."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to where the assistant is to speak."""
    return tokenize(tokenizer, prompt_text(tokenizer, messages))


def render_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], loss_on: str = "final_turn"
) -> Rendered:
    """Token ids of a whole conversation, with labels on the assistant's tokens.

    `loss_on` is `final_turn` or `all_turns`. The end-of-turn token is part of a turn's loss, the
    white space that some templates write after it is not. Raises `ValueError` if the template
    renders a prompt differently once the answer follows it.
    """
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns or turns[-1] != len(messages) - 1:
        raise ValueError("a training conversation must end with an assistant turn.")
    input_ids = tokenize(tokenizer, _text(tokenizer, messages, add_generation_prompt=False))
    labels = [IGNORED] * len(input_ids)
    for turn in turns if loss_on == "all_turns" else turns[-1:]:
        prompt = render_prompt(tokenizer, messages[:turn])
        whole = turn == len(messages) - 1
        through = (
            input_ids if whole else tokenize(tokenizer, _text(tokenizer, messages[: turn + 1], False))
        )
        if through[: len(prompt)] != prompt or input_ids[: len(prompt)] != prompt:
            raise ValueError(
                "the chat template renders a prompt differently when an answer follows it; "
                "finetuning on it would not train what inference asks."
            )
        start, end = len(prompt), _end_of_turn(tokenizer, through, len(prompt))
        labels[start:end] = input_ids[start:end]
    if loss_on == "final_turn" or len(turns) == 1:
        last = _end_of_turn(tokenizer, input_ids, len(prompt))
        input_ids, labels = input_ids[:last], labels[:last]
    if input_ids[-1] not in stop_ids(tokenizer):  # a template that closes no turn
        input_ids, labels = [*input_ids, tokenizer.eos_token_id], [*labels, tokenizer.eos_token_id]
    return Rendered(input_ids, labels)


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids that end a turn: the end-of-sequence token and the usual end-of-turn tokens it has."""
    marks = ("<|end|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>")
    vocabulary = tokenizer.get_added_vocab()
    return {tokenizer.eos_token_id} | {vocabulary[m] for m in marks if m in vocabulary}


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, ids: list[int], start: int) -> int:
    """Position just behind the first end-of-turn token at or after `start`, else the end."""
    stops = stop_ids(tokenizer)
    return next((i + 1 for i in range(start, len(ids)) if ids[i] in stops), len(ids))


def _text(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool
) -> str:
    try:
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # a stranger's program, in a sandbox, may say anything
        raise BackendError(
            f"the chat template of {tokenizer.name_or_path} cannot be rendered ({one_line(error)}): "
            "mend it, or use another model."
        ) from error
    return str(text)
