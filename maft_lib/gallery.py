"""The contact sheet figures/<profile>/index.html: every figure and table, and the run that made it.

Profile, seeds and time are read from the executed copies in runs/<profile>/notebooks/, where
`run_notebooks` keeps what each notebook wrote.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mistune
from jinja2 import Environment, StrictUndefined
from PIL import Image

from maft_lib.config import Config
from maft_lib.store.files import replacing

SHEET = "index.html"
KEY = "maft"  # of an executed copy's metadata
FORMATS = {".png": "PNG", ".pdf": "PDF", ".csv": "CSV", ".tex": "LaTeX", ".md": "Markdown"}
GROUPS = {"fig": "Figures", "table": "Tables", "": "Beside the paper"}


def write_gallery(config: Config) -> Path:
    """Writes the contact sheet of a profile and returns its path.

    What a damaged picture or copy would tell is left out. Raises `ConfigError` if there can be no such
    folder, `OSError` if it cannot be read and `StoreError` if the disk refuses the page.
    """
    with replacing(config.figures / SHEET) as new:
        new.write_text(sheet(config), encoding="utf-8")
    return config.figures / SHEET


def sheet(config: Config, **report: Any) -> str:
    """The page, with what a report of the notebooks adds to it."""
    runs = read_runs(config.own("runs_dir") / "notebooks")
    formats: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted(config.figures.iterdir()):
        if path.suffix in FORMATS and path.is_file():
            formats[path.stem][path.suffix] = path
    entries = [_entry(stem, paths, runs) for stem, paths in formats.items()]
    entries.sort(key=lambda entry: (entry["number"], entry["stem"]))
    sections = {name: [e for e in entries if e["group"] == group] for group, name in GROUPS.items()}
    return render(**{"pages": (), "linked": (), **report}, profile=config.profile, sections=sections)


def render(**values: Any) -> str:
    """A page of the template, which knows the sheet and an executed notebook."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = Path(__file__).with_name("pages.html").read_text(encoding="utf-8")
    return environment.from_string(template).render({"page": None, "policy": "", **values}) + "\n"


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """What the executed copies of a folder tell, the earliest first; silent ones are left out."""
    runs = []
    for path in sorted(folder.glob("*.ipynb")):
        try:
            metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
            timed, kept = metadata["papermill"], metadata[KEY]
            runs.append(
                {
                    "notebook": path.stem,
                    "profile": kept["profile"],
                    "seeds": list(kept["seeds"]),
                    "artefacts": dict(kept["artefacts"]),
                    "start": datetime.fromisoformat(timed["start_time"]).astimezone(UTC),
                    "seconds": float(timed["duration"]),
                    "failed": bool(timed["exception"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a half-written copy, or one that `run_notebooks` has not made
    return sorted(runs, key=lambda run: run["start"])


def digest(path: Path) -> str:
    """The SHA-256 of a file: it tells whether it still is what a notebook wrote. Raises `OSError`."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _entry(stem: str, paths: dict[str, Path], runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A figure or table in all its formats; "table03_differences" is "Table 3: differences"."""
    group, number, title = "", 0, stem
    if match := re.fullmatch(r"(fig|table)(\d+)(?:_(.+))?", stem):
        group, number = match[1], int(match[2])
        title = f"{'Figure' if group == 'fig' else 'Table'} {number}"
        title += f": {match[3].replace('_', ' ')}" if match[3] else ""
    image, table = paths.get(".png"), paths.get(".md")
    shown = image or table or next(iter(paths.values()))
    found = digest(shown)  # the last run that wrote this file as it is now
    made_by = [run for run in runs if run["artefacts"].get(shown.name) == found]
    return {
        "group": group,
        "number": number,
        "stem": stem,
        "title": title,
        "image": image.name if image else "",
        "caption": _caption(image) if image else "",
        "table": _table(table) if table else "",
        "links": {FORMATS[suffix]: path.name for suffix, path in paths.items()},
        "run": made_by[-1] if made_by else None,
    }


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
