"""The executed notebooks of a profile as a static site, with the contact sheet as its front page.

The site goes to runs/<profile>/report/, opens from the file system and asks
nothing of the network: formulas are MathML, figures are in the pages, and each page forbids scripts and
requests by its content security policy. So nothing that a model wrote and a notebook shows can act,
even if it was not escaped where it was shown. An explorer of debates is a file beside its page, made
anew from the data alone; its own policy lets its script run and nothing else.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup

from maft_lib import gallery
from maft_lib.config import Config
from maft_lib.lab.explorer import rebuilt
from maft_lib.lab.page import text_html
from maft_lib.profiles import NOTEBOOKS
from maft_lib.store.files import explained

POLICY = (
    "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; form-action 'none'; "
    "frame-src 'self' file:"
)
SANDBOX = "allow-scripts allow-downloads"
SHOWN = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex")


class ReportError(RuntimeError):
    """There is no report to make; the message says what to do."""


def write_report(config: Config) -> Path:
    """Writes the site of a profile, over an earlier one, and returns its front page.

    Notebooks that failed are shown up to there. Raises `ReportError` if nothing has been executed, and
    `StoreError` if the disk refuses the site.
    """
    folder = config.own("runs_dir") / "report"
    runs = {run["name"]: run for run in gallery.read_runs(config)}
    missing = {"outcome": "has not been executed with this profile", "failed": True, "notebook": None}
    pages = [runs.get(name) or {"name": name, "title": name, **missing} for name in NOTEBOOKS]
    if not any(page["notebook"] for page in pages):
        raise ReportError(
            f"no notebook of the profile {config.profile} has been executed: say "
            f"`make figures PROFILE={config.profile}` first."
        )
    site = _site(config, pages)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, html in site.items():
            (folder / name).write_text(html, encoding="utf-8")
        for path in config.figures.iterdir():
            if path.suffix in gallery.FORMATS and path.is_file():
                shutil.copyfile(path, folder / path.name)
    return folder / gallery.SHEET


def _site(config: Config, pages: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The pages of the site as HTML, by the names of their files."""
    common = {"profile": config.profile, "policy": POLICY}
    shown = [page for page in pages if page["notebook"]]
    site: dict[str, str] = {}
    debates: dict[str, list[str]] = {}
    for before, page, after in zip([None, *shown], shown, [*shown[1:], None]):
        body, explorers = notebook_html(page["notebook"], page["name"])
        site |= explorers
        debates[page["name"]] = list(explorers)
        html = gallery.render(**common, page=page, before=before, after=after, body=body)
        site[f"{page['name']}.html"] = html
    linked = [page["name"] for page in shown]
    sheet = gallery.sheet(config, policy=POLICY, pages=pages, linked=linked, debates=debates)
    return {**site, gallery.SHEET: sheet}


def notebook_html(notebook: Any, name: str) -> tuple[str, dict[str, str]]:
    """The cells of an executed copy as HTML, without scripts, and its explorers by names of files."""
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
    explorers: dict[str, str] = {}
    for frame in body.find_all("iframe"):
        if page := rebuilt(str(frame.get("srcdoc", ""))):
            file = f"{name}_debates_{len(explorers) + 1}.html"
            explorers[file] = page
            link = body.new_tag("a", href=file)
            link.string = "Open these debates as a page"
            frame.insert_before(link)
            frame.attrs = {
                "class": "maft-explorer",
                "title": "debates",
                "src": file,
                "sandbox": SANDBOX,
            }
        else:
            frame.decompose()
    return str(body), explorers


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
