"""Bad prompts files: changes of the default set, and files that are none."""

from pathlib import Path

import yaml

from maft_lib.prompts import DEFAULT


def changed(**changes):
    """The text of the default prompts file with other values; None leaves a key out."""
    texts = yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    texts["answer_format"] |= changes.pop("formats", {})
    texts |= changes
    kept = {name: text for name, text in texts.items() if text is not None}
    return yaml.safe_dump(kept, allow_unicode=True).encode()


BOTH = "{question} {answer_format}"

# the bytes of a file mine.yml, None for a folder of that name, a path for one that is not there
ROWS = {
    "no summary in a critic's": (changed(critic=BOTH), ["`critic` lacks {summary}"]),
    "no question": (changed(generation="{answer_format}"), ["`generation` lacks {question}"]),
    "no prompt": (changed(summary=None), ["`summary` lacks {responses}"]),
    "an empty prompt": (changed(critic_id=""), ["`critic_id` lacks {number}"]),
    "another's field": (
        changed(generation=BOTH + " {summary}"),
        ["`generation` has {summary}", "not filled in"],
    ),
    "a misspelt prompt": (changed(critics="?"), ["no prompt 'critics'"]),
    "a prompt of another library": (changed(system="Be brief."), ["there is no prompt 'system'"]),
    "a list of lines": (changed(generation=["{question}"]), ["`generation` lacks"]),
    "one format": (changed(answer_format={"number": "n"}), ["answer_format lacks `expression`"]),
    "no formats": (changed(answer_format=None), ["answer_format lacks `number`"]),
    "a format of no task": (changed(formats={"gms": "As a number."}), ["`gms`, which is no task"]),
    "a format of a number": (changed(formats={5: "As a number."}), ["answer_format has `5`"]),
    "an empty format": (changed(formats={"number": " "}), ["lacks `number`"]),
    "a null format": (changed(formats={"gsm": None}), ["lacks `gsm`"]),
    "a prompt twice": (
        DEFAULT.read_bytes() + b"\nsummary: '{responses}'\n",
        ["'summary' stands there twice"],
    ),
    "empty": (b"", ["mine.yml has no"]),
    "Latin-1": (
        changed(critic_id="é {number}").decode().encode("latin-1"),
        ["mine.yml cannot be read"],
    ),
    "a folder": (None, ["mine.yml cannot be read", "directory"]),
    "no such file": (Path("nowhere.yml"), ["nowhere.yml cannot be read", "No such file"]),
}
