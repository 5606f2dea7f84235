"""A notebook open in JupyterLab, as a user sees it: page objects over Playwright.

Nothing here sleeps: every step waits for what a user would wait for. Knows nothing of debates.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat

from tests.browser.server import LabServer

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

_WORKSPACES = itertools.count()
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
DEBATE = ".jp-OutputArea-output .maft-debate"
ERROR = "[data-mime-type='application/vnd.jupyter.error']"
# The indicator of the page says idle before there is a kernel; cells that are run then ask for one.
_IDLE = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.context?.sessionContext;
    return session?.isReady && session.kernelDisplayStatus === 'idle';
}"""
_RAN = """panel => {
    const cells = [...document.querySelectorAll(`${panel} .jp-CodeCell`)];
    const prompts = cells.map(cell => cell.querySelector('.jp-InputPrompt').textContent);
    const failed = document.querySelector(`${panel} [data-mime-type="application/vnd.jupyter.error"]`);
    return !prompts.some(p => p.includes('*')) && (failed || prompts.every(p => /\\d/.test(p)));
}"""


class Notebook:
    """The page of one notebook. `complaints` collects the errors that the page wrote to the console."""

    def __init__(self, page: Page, server: LabServer):
        self.page, self.server = page, server
        self.panel = page.locator(PANEL)
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("console", self._listen)

    def _listen(self, message) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} ({message.location.get('url')})")

    def open(self, path: str) -> Notebook:
        """Opens a notebook of the server in an empty workspace; its kernel has started."""
        self.page.goto(self.server.address(path, f"test-{next(_WORKSPACES)}"))
        self.panel.locator(".jp-Notebook").wait_for(timeout=60_000)
        self.wait_for_kernel()
        return self

    def wait_for_kernel(self, seconds: float = 60) -> None:
        """Waits until the kernel is idle."""
        self.page.wait_for_function(_IDLE, timeout=1000 * seconds)

    def run_all(self) -> Notebook:
        """Chooses Run > Run All Cells, as a user does; does not wait for the end."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
        item = self.page.locator(".lm-Menu-item:not(.lm-mod-disabled)", has_text="Run All Cells")
        item.first.click()
        return self

    def restart_kernel(self) -> None:
        """Chooses Kernel > Restart Kernel and agrees; the new kernel is idle."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text="Kernel").first.click()
        self.page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Restart Kernel…$")).click()
        kernels = re.compile(r"/api/kernels/[^/]+/restart")
        with self.page.expect_response(kernels) as answer:
            self.page.locator(".jp-Dialog button", has_text="Restart").click()
        assert answer.value.ok
        self.wait_for_kernel()

    def wait_for_end(self, seconds: float = 120) -> Notebook:
        """Waits until every cell has run, or one has failed."""
        self.page.wait_for_function(_RAN, arg=PANEL, timeout=1000 * seconds)
        self.wait_for_kernel(seconds)
        return self

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other, wherever the focus is."""
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, target: str, most: int = 60) -> int:
        """Presses Tab until an element has the focus that `target` names; returns how often."""
        for number in range(1, most + 1):
            self.press("Tab")
            if self.page.evaluate("target => !!document.activeElement.closest(target)", target):
                return number
        raise AssertionError(f"{target} is not reached by {most} presses of Tab.")

    def look(self, theme: str, width: int, height: int = 1800) -> None:
        """Sets the theme, `light` or `dark`, and the size of the window, the side bar closed."""
        self.page.emulate_media(color_scheme=theme)
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.evaluate("window.jupyterapp.shell.collapseLeft()")
        light = str(theme == "light").lower()
        body = self.page.locator(f"body[data-jp-theme-light='{light}']")
        body.wait_for(state="attached")

    def save(self) -> None:
        """Saves the notebook and waits until it is written."""
        self.panel.locator("[data-command='docmanager:save']").click()
        self.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")

    def cell_with(self, text: str) -> Locator:
        """The code cell whose source contains a text."""
        source = self.page.locator(".jp-InputArea", has_text=text)
        return self.panel.locator(".jp-CodeCell", has=source)

    def errors(self) -> list[str]:
        """What failed cells have written."""
        return self.panel.locator(ERROR).all_inner_texts()

    def dialogs(self) -> list[str]:
        """The dialogs that stand before the page."""
        return self.page.locator(".jp-Dialog").all_inner_texts()


def write_notebook(path: Path, *sources: str) -> Path:
    """Writes a notebook of code cells, stripped as the project's own are."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)
    return path
