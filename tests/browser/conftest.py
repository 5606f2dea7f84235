"""Fixtures of the browser tests: a server, a browser with an empty profile, a page for each test."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.browser.lab import Notebook
from tests.browser.server import LabServer, copy_project

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NO_CHROMIUM = (
    "no chromium on the PATH: install it (Debian: apt-get install chromium) for make test-browser"
)
_MEASURED: dict[str, object] = {}
_FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium without a window, with an empty profile."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium")
    if not executable:
        pytest.fail(NO_CHROMIUM, pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context(browser):
    """One profile for all pages, so that JupyterLab's own files are fetched once."""
    with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
        context.set_default_timeout(20_000)
        yield context


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A JupyterLab server at profile smoke, on a copy of the project."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    server = LabServer(folder, tmp_path_factory.mktemp("jupyter"), MAFT_PROFILE="smoke")
    try:
        yield server.answers()
    finally:
        server.stop()


@pytest.fixture
def notebook(context, server, screenshots, request):
    """A new page on the server; afterwards the page and the kernels that it started are gone.

    Of a test that failed there is a picture.
    """
    page = context.new_page()
    yield Notebook(page, server)
    if request.node.stash.get(_FAILED, False):
        page.screenshot(path=screenshots / f"failed_{request.node.name}.png")
    page.close()
    server.end_kernels()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory):
    """Where screenshots go: MAFT_SCREENSHOTS, else a temporary folder."""
    folder = Path(os.environ.get("MAFT_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def measured():
    """Takes what the tests measure, by name; written after the last test and to MAFT_MEASURED."""
    return _MEASURED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


def pytest_terminal_summary(terminalreporter):
    if _MEASURED:
        terminalreporter.section("measured in the browser")
        terminalreporter.write_line(json.dumps(_MEASURED, indent=2))
        if path := os.environ.get("MAFT_MEASURED"):
            Path(path).write_text(json.dumps(_MEASURED, indent=2) + "\n")
