"""The executed notebooks of a profile as a static site, with the contact sheet as its front page.

    python -m maft_lib.report laptop [FOLDER]

The site goes to runs/<profile>/report/ unless a folder is named, opens from the file system and asks
nothing of the network: formulas are MathML, figures are in the pages, and each page forbids scripts and
requests by its content security policy. So nothing that a model wrote and a notebook shows could act,
even if it had not been escaped where it was shown; nbconvert's own sanitizer is left off, as it removes
the stylesheets, formulas and charts of our outputs. Knows executed copies and figures, no models.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, StrictUndefined
from nbformat import NotebookNode

from maft_lib import gallery
from maft_lib.config import Config, ConfigError
from maft_lib.lab.page import text_html
from maft_lib.profiles import NOTEBOOKS, load_config

MARK = 'content="maft_lib.report"'  # of a front page that may be replaced
POLICY = "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; form-action 'none'"
TEMPLATE = Path(__file__).with_suffix(".html")
SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex")


class ReportError(RuntimeError):
    """There is no report to make, or no place for it; the message says what to do."""


class Page(NamedTuple):
    """A notebook of the profile: what it is called, what came of it, and its executed copy if any."""

    name: str
    title: str
    outcome: str
    failed: bool
    notebook: NotebookNode | None


def write_report(config: Config, folder: Path | None = None) -> Path:
    """Makes the site of a profile, in place of an earlier one, and returns its front page.

    Notebooks that failed are shown up to there; these and those that have not been executed are named
    on the front page. Raises `ReportError` if nothing has been executed, if `folder` holds other files
    or cannot be written, and `ConfigError` if there can be no figures folder.
    """
    home = config.own("runs_dir")
    if folder is None and (home / "report").is_symlink():
        raise ReportError(f"{home / 'report'} is a link to another place: take it away, or name that.")
    folder = (folder or home / "report").resolve()
    pages = read_pages(home / "notebooks")
    if not any(page.notebook for page in pages):
        raise ReportError(
            f"no notebook of the profile {config.profile} has been executed: say "
            f"`make figures PROFILE={config.profile}` first."
        )
    try:
        _check_replaceable(folder)
        _replace(config, pages, folder)
    except OSError as error:
        raise ReportError(
            f"{folder} cannot be written ({error.strerror}): name another folder, or free some space."
        ) from error
    return folder / gallery.SHEET


def _replace(config: Config, pages: Sequence[Page], folder: Path) -> None:
    """Writes the site beside its place, then puts it there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder.parent) as beside:
        site = Path(beside) / "new"
        site.mkdir()
        _write_site(config, pages, site)
        if folder.exists():
            folder.rename(Path(beside) / "old")
        site.rename(folder)


def read_pages(folder: Path) -> list[Page]:
    """The notebooks in the order of their names, executed or not, and what else lies there executed."""
    names = {*NOTEBOOKS, *(path.stem for path in folder.glob("*.ipynb"))}
    return [_read_page(folder / f"{name}.ipynb") for name in sorted(names)]


def _read_page(path: Path) -> Page:
    name = path.stem
    if not path.exists():
        return Page(name, name, "has not been executed with this profile", True, None)
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, nbformat.ValidationError):
        return Page(name, name, "has an executed copy that cannot be read: run it again", True, None)
    outcome, failed = _outcome(notebook)
    return Page(name, _title(notebook) or name, outcome, failed, notebook)


def _outcome(notebook: NotebookNode) -> tuple[str, bool]:
    """What came of it in words, and whether that is a failure."""
    timed = notebook.metadata.get("papermill", {})
    errors = [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    if errors:
        first = next(iter(str(errors[0].evalue).splitlines()), "")[:300]
        return f"failed with {errors[0].ename}: {first}", True
    if timed.get("exception"):
        return "failed", True
    if not any(cell.get("execution_count") for cell in notebook.cells):
        return "has never been executed", True
    if timed and not timed.get("end_time"):
        return "was cut short, or is still running", True
    return (f"took {timed['duration']:.0f} s" if timed.get("duration") else "executed"), False


def _title(notebook: NotebookNode) -> str:
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return next((line[2:].strip() for line in prose.splitlines() if line.startswith("# ")), "")


def _check_replaceable(folder: Path) -> None:
    front = folder / gallery.SHEET
    ours = front.is_file() and MARK in front.read_text(encoding="utf-8", errors="replace")
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise ReportError(f"{folder} holds something else than a report: name a new or empty folder.")


def _write_site(config: Config, pages: Sequence[Page], site: Path) -> None:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    told = {"profile": config.profile, "policy": POLICY, "mark": MARK, "front": gallery.SHEET}
    shown = [page for page in pages if page.notebook is not None]
    for before, page, after in zip([None, *shown], shown, [*shown[1:], None]):
        body = _body(page.name, page.notebook)
        html = template.render(
            told, page=page, before=before, after=after, body=str(body), contents=_contents(body)
        )
        (site / f"{page.name}.html").write_text(html + "\n", encoding="utf-8")
    head, listed = (
        template.render(told, page=None, part=part, pages=pages) for part in ("head", "list")
    )
    sheet = gallery.write_gallery(config).read_text(encoding="utf-8")
    (site / gallery.SHEET).write_text(_front(sheet, head, listed, shown), encoding="utf-8")
    for path in config.figures.iterdir():
        if path.suffix in gallery.FORMATS and path.is_file():
            shutil.copyfile(path, site / path.name)


def _front(sheet: str, head: str, listed: str, pages: Sequence[Page]) -> str:
    """The contact sheet with the list of notebooks before its own, and links to those who made what."""
    page: Any = BeautifulSoup(sheet, "html.parser")
    page.head.meta.insert_after(BeautifulSoup(head, "html.parser"))
    for heading in (page.title, page.h1):
        heading.string = heading.string.replace("Figures", "Notebooks, figures")
    page.nav.insert_before(BeautifulSoup(listed, "html.parser"))
    for made in page.select("p.made"):
        for text in made.find_all(string=True, recursive=False):
            for name in (p.name for p in pages if p.name in text.split()):
                before, after = str(text).split(name, 1)
                link = page.new_tag("a", href=f"{name}.html", string=name)
                text.replace_with(before, link, after)
                break
    return str(page)


def _body(name: str, notebook: Any) -> BeautifulSoup:
    """The cells of an executed copy as HTML, without scripts."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config as Settings

    log = logging.getLogger(__name__)
    log.setLevel(logging.ERROR)  # it warns of every figure
    settings = Settings({"NbConvertBase": {"display_data_priority": [*SHOWN, "text/plain"]}})
    exporter = HTMLExporter(template_name="basic", config=settings, log=log)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.register_filter("markdown2html", markdown_html)
    body = BeautifulSoup(exporter.from_notebook_node(notebook)[0], "html.parser")
    for script in body.find_all("script"):  # a widget's state; the policy would stop it anyway
        script.decompose()
    for image in body.find_all("img"):
        if str(image.get("alt")).startswith("No description"):
            image["alt"] = f"figure of the notebook {name}"
    return body


def markdown_html(source: str) -> str:
    """Prose as HTML, its formulas as MathML."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def block_math(self, body: str) -> str:
            return text_html(f"$${body.strip()}$$")

        def inline_math(self, body: str) -> str:
            return text_html(rf"\({body.strip()}\)")

        def latex_environment(self, name: str, body: str) -> str:
            return text_html(rf"\begin{{{name}}}{body}\end{{{name}}}")

    return MarkdownWithMath(renderer=Renderer(escape=False)).render(source)


def _contents(body: BeautifulSoup) -> list[tuple[str, str]]:
    """(id, text) of the sections of the prose."""
    found = body.select(".text_cell h2[id], .text_cell h3[id]")
    return [(str(heading["id"]), heading.get_text().rstrip("¶").strip()) for heading in found]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Turn a profile's executed notebooks into a site.")
    parser.add_argument("profile", nargs="?", default="laptop", help="a file of params/")
    parser.add_argument("folder", nargs="?", type=Path, help="default: runs/<profile>/report")
    given = parser.parse_args(arguments)
    try:
        front = write_report(load_config(given.profile), given.folder)
    except (ConfigError, ReportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{os.path.relpath(front)}: open it in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
