"""Each notebook opens in JupyterLab with its title and its formulas; two of them are run to the end."""

import re
import time

import nbformat
import pytest

from maft_lib.profiles import NOTEBOOKS
from tests.browser.lab import DEBATE
from tests.browser.server import ROOT

pytestmark = pytest.mark.browser
FORMULA = re.compile(r"\$\$[^$]+\$\$|\$[^$\s](?:[^$]*[^$\s])?\$")


def prose(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_opens_with_its_title_and_formulas(name, notebook):
    notebook.open(f"notebooks/{name}.ipynb")
    texts = prose(name)
    title = notebook.panel.locator(".jp-RenderedMarkdown h1").first
    assert title.inner_text().rstrip("¶ ") == texts[0].splitlines()[0].lstrip("# ")
    formulas = FORMULA.findall("\n\n".join(texts))
    typeset = notebook.panel.locator(".jp-RenderedMarkdown mjx-container")
    if formulas:
        typeset.nth(len(formulas) - 1).wait_for(state="attached")
    assert typeset.count() == len(formulas)
    assert notebook.panel.locator("mjx-merror").count() == 0
    assert notebook.dialogs() == []
    assert notebook.complaints == []


@pytest.mark.parametrize("name", ["00_quickstart", "02_1_multiagent_debate"])
def test_a_notebook_runs_to_the_end(name, notebook, measured):
    notebook.open(f"notebooks/{name}.ipynb")
    start = time.perf_counter()
    notebook.run_all().wait_for_end(180)
    measured[f"{name}, all cells at smoke (s)"] = round(time.perf_counter() - start, 1)
    assert notebook.errors() == []
    if name == "00_quickstart":
        assert notebook.panel.locator(DEBATE).first.is_visible()
    assert notebook.dialogs() == []
    assert notebook.complaints == []
