"""Messages to token ids by a model's chat template, one way for inference and for training.

Finetuning must see a prompt exactly as inference will render it, so both call `prompt_text`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from maft_lib.backends import BackendError, Message
from maft_lib.config import Config
from maft_lib.wording import one_line

if TYPE_CHECKING:  # it takes a second
    from transformers import PreTrainedTokenizerBase as Tokenizer

IGNORED = -100  # the label that PyTorch's cross entropy skips
END_OF_TURN = ("<|end|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>")
# Marks of thoughts, which are no text even where a tokenizer calls them special tokens
_MARKS = ("<think>", "</think>", "[THINK]", "[/THINK]", "<|channel|>")
_OPENED = re.compile(r"(?:<think(?:ing)?>|\[THINK\])\s*$", re.IGNORECASE)


class Template(NamedTuple):
    """What chat templates are given beside the messages; `hub.load_tokenizer` keeps it.

    `enable_thinking` None leaves it to the template whether the model thinks; `date` is what one that
    asks for the day is told, so that a prompt is the same tomorrow.
    """

    enable_thinking: bool | None = None
    date: str = "2024-07-26"

    @classmethod
    def of(cls, config: Config) -> Template:
        """What the config says."""
        return cls(config.enable_thinking, config.template_date)


USUAL = Template()


class Rendered(NamedTuple):
    """A conversation as token ids, with `labels` equal to the ids where the loss is taken."""

    input_ids: list[int]
    labels: list[int]


def prompt_text(tokenizer: Tokenizer, messages: Sequence[Message], ask: bool = True) -> str:
    """The text of a conversation, if `ask` up to where the assistant is to speak."""
    given = getattr(tokenizer, "template", USUAL)
    more: Any = {"add_generation_prompt": ask}
    more["strftime_now"] = datetime.fromisoformat(given.date).strftime
    if given.enable_thinking is not None:
        more["enable_thinking"] = given.enable_thinking
    try:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, **more)
    except Exception as error:  # a stranger's program, in a sandbox, may say anything
        raise BackendError(
            f"the chat template of {tokenizer.name_or_path} cannot be rendered ({one_line(error)}): "
            "mend it, or use another model."
        ) from error
    return str(text)


def tokenize(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of rendered text; the template has written the special tokens already."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to where the assistant is to speak."""
    return tokenize(tokenizer, prompt_text(tokenizer, messages))


def render_conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], loss_on: str = "final_turn"
) -> Rendered:
    """Token ids of a conversation that ends with an answer, with labels on the assistant's tokens.

    `loss_on` is `final_turn` or `all_turns`. A turn is what inference makes of it: the prompt as it was
    asked, the response's own ids and the end of turn, whatever else the template would write around an
    answer. Raises `ValueError` if a later prompt does not hold an earlier turn as it was said, and if a
    prompt begins a thought, or a template writes into channels: there nobody says an answer alone.
    """
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    ids: list[int] = []
    labels: list[int] = []
    for turn in turns if loss_on == "all_turns" else turns[-1:]:
        asked = prompt_text(tokenizer, messages[:turn])
        if _OPENED.search(asked):
            raise ValueError(
                "the chat template begins a thought (<think>) that an answer alone does not end: set "
                "enable_thinking: false, or use a model that answers without"
            )
        prompt = tokenize(tokenizer, asked)
        if prompt[: len(ids)] != ids:
            raise ValueError(
                "the chat template renders an earlier answer differently from what was said: set "
                "critic_loss_on: final_turn"
            )
        response = messages[turn]["content"]
        said = [*_response_ids(tokenizer, asked, prompt, response), end_of_turn(tokenizer)]
        labels += [IGNORED] * (len(prompt) - len(ids)) + said
        ids = prompt + said
    return Rendered(ids, labels)


def _response_ids(tokenizer: Tokenizer, asked: str, prompt: list[int], response: str) -> list[int]:
    """The ids of a response after its prompt, none of which is a special token."""
    whole = tokenize(tokenizer, asked + response)
    ids = whole[len(prompt) :]
    if whole[: len(prompt)] != prompt or not set(tokenizer.all_special_ids).isdisjoint(ids):
        alone = tokenizer(response, add_special_tokens=False, split_special_tokens=True)
        ids = alone["input_ids"]
    return ids


@lru_cache(maxsize=32)
def end_of_turn(tokenizer: Tokenizer) -> int:
    """The token by which the template ends an answer; where it writes none, the end of sequence."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Answer!"}]
    before, _, after = prompt_text(tokenizer, turns, ask=False).rpartition("Answer!")
    if "<|channel|>" in before:
        raise ValueError("the chat template writes answers into channels: use a model without")
    stops = stop_ids(tokenizer)
    return next((i for i in tokenize(tokenizer, after) if i in stops), tokenizer.eos_token_id)


def stop_ids(tokenizer: Tokenizer, declared: Iterable[int] = ()) -> set[int]:
    """Ids that end a turn: those `declared` by a generation config, the end-of-sequence token, and
    what the chat template writes after an answer. Usual ones only where config and template say none.
    """
    added, ends = tokenizer.get_added_vocab(), set(declared)
    try:
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Answer!"}]
        after = prompt_text(tokenizer, turns, ask=False).rpartition("Answer!")[2]
        ends |= {*tokenize(tokenizer, after.lstrip())[:1]} & {*added.values()}
    except BackendError:  # no template, or one that wants other turns
        pass
    return {tokenizer.eos_token_id} | (ends or {added[m] for m in END_OF_TURN if m in added})


def written_text(tokenizer: Tokenizer, ids: Sequence[int], prompt: str) -> str:
    """What new tokens after a prompt say, with the marks of thoughts: also with the one by which the
    prompt has begun a thought for the model."""
    added = tokenizer.get_added_vocab()
    thinks = not {added.get(mark) for mark in _MARKS}.isdisjoint(ids)
    begun = _OPENED.search(prompt)
    text = tokenizer.decode(list(ids), skip_special_tokens=not thinks)
    return (begun[0] if begun else "") + str(text)


def check_text(
    tokenizer: Tokenizer, ids: Sequence[int], window: int | None, num_embeddings: int, new: int = 0
) -> None:
    """Raises `BackendError` for a text that does not fit with `new` tokens more, or that has a token
    for which the model has no embedding, as tokenizers of models for images have."""
    name = tokenizer.name_or_path
    if window and len(ids) + new > window:
        raise BackendError(
            f"a text of {len(ids)} tokens does not fit the {window} of {name}: take a model with a "
            "larger window, lower num_agents or num_rounds, or keep summarize on."
        )
    if (largest := max(ids)) >= num_embeddings:
        raise BackendError(
            f"a text holds {tokenizer.decode([largest])!r}, for which {name} has no embedding: take it "
            "out of the problem or the prompts."
        )
