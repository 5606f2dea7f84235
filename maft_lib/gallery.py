"""The contact sheet figures/<profile>/index.html: every figure and table, and the notebook behind it.

Notebooks are read from their executed copies in runs/<profile>/notebooks/.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mistune
import nbformat
from jinja2 import Environment, StrictUndefined
from PIL import Image

from maft_lib import reported
from maft_lib.config import Config
from maft_lib.store.files import replacing

SHEET = "index.html"
FORMATS = {".png": "PNG", ".pdf": "PDF", ".csv": "CSV", ".tex": "LaTeX", ".md": "Markdown"}
GROUPS = {"fig": "Figures", "table": "Tables", "": "Beside the paper"}


def write_gallery(config: Config) -> Path:
    """Writes the contact sheet of a profile and returns its path.

    Damaged pictures and notebooks are left out. Raises `ConfigError` if there can be no such folder,
    `OSError` if it cannot be read and `StoreError` if the disk refuses the page.
    """
    with replacing(config.figures / SHEET) as new:
        new.write_text(sheet(config), encoding="utf-8")
    return config.figures / SHEET


def sheet(config: Config, **report: Any) -> str:
    """The page, with what a report of the notebooks adds to it."""
    runs = read_runs(config)
    formats: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted(config.figures.iterdir()):
        if path.suffix in FORMATS and path.is_file():
            formats[path.stem][path.suffix] = path
    entries = [_entry(stem, paths, runs) for stem, paths in formats.items()]
    entries.sort(key=lambda entry: (entry["number"], entry["stem"]))
    sections = {name: [e for e in entries if e["group"] == group] for group, name in GROUPS.items()}
    return render(
        **{"pages": (), "linked": (), "debates": {}, **report},
        profile=config.profile,
        sections=sections,
    )


def render(**values: Any) -> str:
    """A page of the template, which has both the sheet and an executed notebook."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = Path(__file__).with_name("pages.html").read_text(encoding="utf-8")
    return environment.from_string(template).render({"page": None, "policy": "", **values}) + "\n"


def read_runs(config: Config) -> list[dict[str, Any]]:
    """The executed notebooks of a profile, the earliest first: title, start and what came of each."""
    runs = []
    for path in sorted((config.own("runs_dir") / "notebooks").glob("*.ipynb")):
        try:
            notebook = nbformat.read(path, as_version=4)
            timed = notebook.metadata.papermill
            start = datetime.fromisoformat(timed.start_time).astimezone(UTC)
            lines = [line for cell in notebook.cells for line in cell.source.splitlines()]
        except (OSError, ValueError, TypeError, AttributeError, nbformat.ValidationError):
            continue  # a half-written copy, or one that papermill has not made
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        errors = [output for output in outputs if output.output_type == "error"]
        failed = True
        if errors:
            outcome = f"failed with {errors[0].ename}: {str(errors[0].evalue)[:300]}"
        elif timed.get("exception"):  # the kernel was killed
            outcome = "failed without an error to show"
        elif not timed.get("end_time"):
            outcome = "was cut short, or is still running"
        else:
            outcome, failed = f"took {timed.duration:.0f} s", False
        title = next((line[2:].strip() for line in lines if line.startswith("# ")), path.stem)
        run = {"name": path.stem, "title": title, "outcome": outcome, "failed": failed, "start": start}
        runs.append({**run, "notebook": notebook, "source": "\n".join(lines)})
    return sorted(runs, key=lambda run: run["start"])


def _entry(stem: str, paths: dict[str, Path], runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A figure or table in all its formats; "table03_differences" is "Table 3: differences".

    Its run is the last notebook that names the file and began before it was written.
    """
    match = re.match(r"(fig|table)(?=_|\d)(\d*)_?", stem)
    kind, digits = match.groups() if match else ("", "")
    rest = stem[match.end() :] if match else stem
    group, number = (kind, int(digits)) if kind and digits else ("", 0)
    named = {"fig": "Figure", "table": "Table"}.get(kind, "")
    words = re.sub(r"\bfig0*(\d+)", r"figure \1", rest).replace("_", " ")
    title = ": ".join(filter(None, [f"{named} {number or ''}".strip(), words]))
    title = title[:1].upper() + title[1:]
    image, table = paths.get(".png"), paths.get(".md")
    written = (image or table or next(iter(paths.values()))).stat().st_mtime
    begun = [run for run in runs if run["start"].timestamp() <= written]
    named_by = [run for run in begun if re.search(rf"\b{re.escape(stem)}\b", run["source"])]
    run = named_by[-1] if named_by else None
    caption = _caption(image) if image else ""
    if group == "table" and 1 <= number <= 7:
        caption = f"The paper's Table {number}: {reported.about(f'table_{number}')['title']}."
    return {
        "group": group,
        "number": number,
        "stem": stem,
        "title": title,
        "image": image.name if image else "",
        "caption": caption or (f"From the notebook “{run['title']}”." if run else ""),
        "table": _table(table) if table else "",
        "links": {FORMATS[suffix]: path.name for suffix, path in paths.items()},
        "run": run,
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
