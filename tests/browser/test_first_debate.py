"""How long it takes from `make lab` (installed) to the first debate on screen, with an empty store."""

import os
import time

import pytest

from tests.browser.lab import DEBATE, Notebook
from tests.browser.server import LabServer, copy_project

pytestmark = pytest.mark.browser


@pytest.fixture
def started(tmp_path):
    """A server that was started this moment, at the default profile, and when that was."""
    folder = copy_project(tmp_path / "project")
    start = time.perf_counter()
    server = LabServer(folder, tmp_path / "jupyter", MAFT_PROFILE="laptop")  # the default
    try:
        yield server, start
    finally:
        server.stop()


def test_time_to_the_first_debate(started, context, measured):
    server, start = started
    server.answers()
    seconds = {"server answers": time.perf_counter() - start}
    page = context.new_page()
    notebook = Notebook(page, server).open("notebooks/00_quickstart.ipynb")
    seconds["notebook open, kernel idle"] = time.perf_counter() - start
    notebook.run_all()
    debate = notebook.panel.locator(DEBATE).first
    debate.wait_for(timeout=120_000)
    seconds["first debate on screen"] = time.perf_counter() - start
    rounded = {name: round(taken, 1) for name, taken in seconds.items()}
    measured["from make lab (s)"] = {**rounded, "load average then": round(os.getloadavg()[0], 1)}
    assert notebook.errors() == []
    assert "ground truth" in debate.inner_text()
    page.close()
