"""Small JSON files named by the hash of what they say, so that damage shows. Knows no meaning."""

from __future__ import annotations

import json
from pathlib import Path

from maft_lib.disk import content_key, explained, replacing


def save_record(folder: Path, values: dict) -> Path:
    """Writes plain JSON values into `folder`; returns the file. What is there already is left as it is.

    Raises `StoreError` if it cannot be written.
    """
    text = json.dumps(values, indent=1) + "\n"
    place = folder / f"{content_key(json.loads(text))}.json"
    with explained(place):
        if place.is_file() and place.read_bytes() == text.encode():
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as new:
        new.write_text(text, encoding="utf-8")
    return place


def read_records(folder: Path) -> tuple[list[dict], list[Path]]:
    """The records in `folder`, by their names, and the files that are damaged."""
    found, damaged = [], []
    for path in sorted(path for path in folder.glob("*.json") if path.is_file()):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if content_key(values) != path.stem:
                raise ValueError("altered")
            found.append(values)
        except (OSError, ValueError):
            damaged.append(path)
    return found, damaged
