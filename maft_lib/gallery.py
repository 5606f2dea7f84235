"""The contact sheet figures/<profile>/index.html: every figure and table, and the run that made it.

    python -m maft_lib.gallery laptop

Number, profile, seed and time are read from the executed copies in runs/<profile>/notebooks/, where
`run_notebooks` keeps what each notebook wrote. Knows files alone, no debates and no models.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import mistune
from jinja2 import Environment, StrictUndefined
from PIL import Image

from maft_lib.config import Config, ConfigError
from maft_lib.profiles import load_config
from maft_lib.store.files import StoreError, replacing

SHEET = "index.html"
KEY = "maft"  # of an executed copy's metadata
FORMATS = {".png": "PNG", ".pdf": "PDF", ".csv": "CSV", ".tex": "LaTeX", ".md": "Markdown"}
GROUPS = {"fig": "Figures", "table": "Tables", "": "Beside the paper"}
TEMPLATE = Path(__file__).with_suffix(".html")


class Run(NamedTuple):
    """One execution of a notebook, as its executed copy tells it."""

    start: datetime
    notebook: str
    profile: str
    seeds: list[int]
    seconds: float
    failed: bool
    artefacts: dict[str, str]  # the digest of each file that it wrote


class Entry(NamedTuple):
    """A figure or table in all its formats."""

    group: str
    number: int
    stem: str
    title: str
    image: str
    caption: str
    table: str  # HTML, safe
    links: dict[str, str]
    run: Run | None


def write_gallery(config: Config) -> Path:
    """Writes the contact sheet from a profile's figures folder and executed copies; returns its path.

    What a damaged picture or copy would tell is left out. Raises `ConfigError` if there can be no such
    folder, `OSError` if it cannot be read and `StoreError` if the disk refuses the page.
    """
    folder = config.figures
    runs = read_runs(config.own("runs_dir") / "notebooks")
    entries = _entries(folder, runs)
    sections = {name: [e for e in entries if e.group == group] for group, name in GROUPS.items()}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(profile=config.profile, sections=sections)
    with replacing(folder / SHEET) as new:
        new.write_text(page + "\n", encoding="utf-8")
    return folder / SHEET


def read_runs(folder: Path) -> list[Run]:
    """What the executed copies of a folder tell, the earliest first; silent ones are left out."""
    runs = []
    for path in sorted(folder.glob("*.ipynb")):
        try:
            metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
            runs.append(_run(path.stem, metadata["papermill"], metadata[KEY]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a half-written copy, or one that `run_notebooks` has not made
    return sorted(runs, key=lambda run: run.start)


def digest(path: Path) -> str:
    """The SHA-256 of a file: it tells whether it still is what a notebook wrote. Raises `OSError`."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(notebook: str, timed: dict[str, Any], kept: dict[str, Any]) -> Run:
    return Run(
        start=datetime.fromisoformat(timed["start_time"]).astimezone(UTC),
        notebook=notebook,
        profile=kept["profile"],
        seeds=list(kept["seeds"]),
        seconds=float(timed["duration"]),
        failed=bool(timed["exception"]),
        artefacts=dict(kept["artefacts"]),
    )


def _entries(folder: Path, runs: Sequence[Run]) -> list[Entry]:
    formats: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted(folder.iterdir()):
        if path.suffix in FORMATS and path.is_file():
            formats[path.stem][path.suffix] = path
    found = (_entry(stem, paths, runs) for stem, paths in formats.items())
    return sorted(found, key=lambda entry: (entry.number, entry.stem))


def _entry(stem: str, paths: dict[str, Path], runs: Sequence[Run]) -> Entry:
    group, number, title = _title(stem)
    image, table = paths.get(".png"), paths.get(".md")
    shown = image or table or next(iter(paths.values()))
    return Entry(
        group=group,
        number=number,
        stem=stem,
        title=title,
        image=image.name if image else "",
        caption=_caption(image) if image else "",
        table=_table(table) if table else "",
        links={FORMATS[suffix]: path.name for suffix, path in paths.items()},
        run=_made_by(shown, runs),
    )


def _title(stem: str) -> tuple[str, int, str]:
    """Group, number and title: "table03_differences" is ("table", 3, "Table 3: differences")."""
    match = re.fullmatch(r"(fig|table)(\d+)(?:_(.+))?", stem)
    if not match:
        return "", 0, stem
    title = f"{'Figure' if match[1] == 'fig' else 'Table'} {int(match[2])}"
    return match[1], int(match[2]), f"{title}: {match[3].replace('_', ' ')}" if match[3] else title


def _made_by(path: Path, runs: Sequence[Run]) -> Run | None:
    """The last run that wrote this file as it is now."""
    found = digest(path)
    return next((run for run in reversed(runs) if run.artefacts.get(path.name) == found), None)


def _caption(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return str(image.info.get("Description", "")).strip()
    except (OSError, ValueError, SyntaxError):  # all three are Pillow's for a damaged picture
        return ""


def _table(path: Path) -> str:
    """A Markdown file as HTML, in which no cell can bring tags, pictures or links of its own."""
    markdown = mistune.create_markdown(escape=True, plugins=["table"])
    for rule in ("link", "auto_link", "auto_email"):
        markdown.inline.rules.remove(rule)
    return str(markdown(path.read_text(encoding="utf-8", errors="replace")))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write a profile's figures and tables on one page.")
    parser.add_argument("profile", nargs="?", default="laptop", help="a file of params/")
    try:
        print(write_gallery(load_config(parser.parse_args(arguments).profile)))
    except (ConfigError, StoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
