"""The studio with the miniature model: ask, watch, stop, save; by mouse and by keyboard alone."""

import re
import time
from pathlib import Path

import pytest

from tests.browser.lab import write_notebook

pytestmark = pytest.mark.browser
CELL = "from maft_lib.lab.studio import DebateStudio\nDebateStudio()"
AFTER = "print('the page goes on')"
QUESTION = "What is the result of 3+4*2+5-1*6?"
FINISHED = re.compile("Finished")


@pytest.fixture
def studio(server, notebook):
    """The studio's element, in a notebook that has run."""
    write_notebook(server.folder / "notebooks" / "studio.ipynb", CELL, AFTER)
    notebook.open("notebooks/studio.ipynb").run_all().wait_for_end()
    assert notebook.errors() == []
    studio = notebook.panel.locator(".maft-studio")
    studio.locator(".maft-start").wait_for()
    yield studio
    assert notebook.complaints == []


def says(studio, text, seconds=60):
    studio.locator(".maft-status", has_text=text).wait_for(timeout=1000 * seconds)


def rounds(studio):
    return studio.locator(".maft-rounds > tbody > tr").count()


def saved(page, link):
    with page.expect_download() as download:
        link()
    return download.value.suggested_filename, Path(download.value.path()).read_text()


def test_by_mouse(studio, notebook, measured):
    studio.locator(".maft-draw").click()
    says(studio, "problem of arithmetic")
    question = studio.locator(".maft-question textarea").input_value()
    truth = studio.locator(".maft-truth input").input_value()
    assert question and truth
    begun = time.perf_counter()
    studio.locator(".maft-start").click()
    studio.locator(".maft-response", has_text=re.compile(r"\w")).first.wait_for(timeout=60_000)
    first = time.perf_counter() - begun
    says(studio, FINISHED)
    whole = time.perf_counter() - begun
    measured["studio, from Start (s)"] = {"first words": round(first, 1), "finished": round(whole, 1)}
    assert rounds(studio) == 2 and studio.locator(".maft-verdict").is_visible()
    link = studio.locator(".maft-saved")
    name, text = saved(notebook.page, link.click)
    assert name == "debates.html" and "<title>1 debate</title>" in text
    studio.locator(".maft-debates summary").click()
    frame = studio.frame_locator("iframe.maft-explorer")
    assert frame.locator("#debate h2").inner_text() == question


STOPS = """studio => new MutationObserver((_, observer) => {
    const stop = studio.querySelector(".maft-stop"), said = studio.querySelector(".maft-response")
    if (stop.disabled || !said?.textContent.trim()) return
    observer.disconnect()
    stop.click()
}).observe(studio, {subtree: true, childList: true, characterData: true})"""


def test_it_says_what_is_wrong_stops_and_starts_again(studio):
    studio.locator(".maft-start").click()
    says(studio, "there is no problem yet")
    assert studio.locator(".maft-status [role=alert]").is_visible()
    studio.locator(".maft-question textarea").fill(QUESTION)
    studio.locator(".maft-temperature input").fill("-1")
    studio.locator(".maft-start").click()
    says(studio, "temperature")
    studio.locator(".maft-temperature input").fill("1")
    studio.locator(".maft-num-agents input").fill("10")
    studio.locator(".maft-num-rounds input").fill("9")
    studio.evaluate(STOPS)  # a hand would come too late
    studio.locator(".maft-start").click()
    says(studio, "Stopped")
    assert 0 < rounds(studio) < 9
    assert not studio.locator(".maft-verdict", has_text="vote").count()
    studio.locator(".maft-num-rounds input").fill("1")
    studio.locator(".maft-start").click()
    says(studio, FINISHED)
    assert rounds(studio) == 1


def test_by_keyboard_alone(studio, notebook):
    notebook.tab_to(".maft-studio .maft-question")
    notebook.page.keyboard.type(QUESTION)
    notebook.tab_to(".maft-studio .maft-task")
    notebook.press("m", "i", "n")
    assert studio.locator(".maft-task select").evaluate("e => e.selectedOptions[0].text") == "mini_gsm"
    notebook.press("ArrowUp")
    notebook.tab_to(".maft-studio .maft-num-rounds")
    notebook.press("ArrowUp")
    notebook.tab_to(".maft-studio .maft-start")
    notebook.press("Enter")
    says(studio, FINISHED)
    assert rounds(studio) == 3
    notebook.tab_to(".maft-studio .maft-saved", most=100)
    name, _ = saved(notebook.page, lambda: notebook.press("Enter"))
    assert name == "debates.html"
