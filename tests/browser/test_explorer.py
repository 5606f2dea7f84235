"""The explorer's page in a browser: as a file, in a reopened notebook, light, dark and narrow."""

import json
import re
import statistics
import time
from pathlib import Path

import pytest

from maft_lib.debate import Debate
from maft_lib.lab.explorer import DebateExplorer
from tests.browser.lab import write_notebook
from tests.browser.records import ordinary_debates

pytestmark = pytest.mark.browser
CELL = """from maft_lib.lab.explorer import DebateExplorer
from tests.browser.records import ordinary_debates
DebateExplorer({"debate": ordinary_debates(40), "multiagent_ft": ordinary_debates(40, 1, 0.7)})"""


@pytest.fixture(scope="module")
def made():
    """1,000 debates in two runs of the same problems."""
    return {"debate": ordinary_debates(500), "multiagent_ft": ordinary_debates(500, 1, 0.7)}


@pytest.fixture(scope="module")
def file(made, tmp_path_factory):
    return DebateExplorer(made).save(tmp_path_factory.mktemp("explorer") / "debates.html")


@pytest.fixture
def page(browser, file):
    """The page as a file in a window of its own; it complains of nothing and fetches nothing."""
    context = browser.new_context(viewport={"width": 1600, "height": 900})
    page, complaints = context.new_page(), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on(
        "request", lambda request: request.url.startswith("http") and complaints.append(request.url)
    )
    visit(page, file)
    yield page
    context.close()
    assert complaints == []


def visit(page, file, hash=""):
    page.goto("about:blank")
    page.goto(file.as_uri() + hash)
    page.locator("body.ready").wait_for()


def count(page):
    """What is said of how many match, and the place of the debate on screen among them."""
    words = page.locator("#count").inner_text()
    number, matching = re.match(r"([\d,]+) of ([\d,]+) debates?\b", words).groups()
    return int(number.replace(",", "")), int(matching.replace(",", ""))


def column(page, name):
    return page.locator(f"#list tbody td.{name}").all_inner_texts()


def saved(page, button, folder):
    with page.expect_download() as download:
        page.locator(button).click()
    download.value.save_as(path := folder / download.value.suggested_filename)
    return path


def test_filter_search_and_sort_by_mouse(page):
    assert count(page) == (1, 1000)
    page.locator("#list tbody tr[id]").nth(1).click()
    assert count(page) == (2, 1000)
    page.locator("#task").select_option("mini_math")
    assert count(page)[1] == 250
    page.locator("#level").select_option("2")
    page.locator("#outcome").select_option("critic fixed it")
    some = count(page)[1]
    assert 0 < some < 250
    assert page.locator("#debate").get_by_text("wrong → right").first.is_visible()
    assert page.locator("#debate .meta").first.inner_text().startswith("mini_math · level 2")
    page.locator("#clear").click()
    assert count(page)[1] == 1000
    page.locator("th.after button").click()
    values = [float(text.split()[1]) for text in column(page, "after")]
    assert (
        values == sorted(values) and page.locator("th.after").get_attribute("aria-sort") == "ascending"
    )
    page.locator("th.after button").click()
    assert page.locator("th.after").get_attribute("aria-sort") == "descending"
    page.locator("#search").fill("what RESULT boxed{11}")
    page.wait_for_function("() => !document.querySelector('#count').textContent.includes('of 1,000')")
    assert 0 < count(page)[1] < 500
    page.locator("#search").fill("nowhere to be found")
    page.get_by_text("No debate matches these filters").wait_for()


def test_by_keyboard_alone(page):
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert count(page)[0] == 2
    page.keyboard.press("Escape")  # to the table
    for key, place in (("ArrowDown", 3), ("End", 1000), ("ArrowUp", 999), ("Home", 1)):
        page.keyboard.press(key)
        assert count(page)[0] == place
        assert page.locator("tr[aria-selected=true]").is_visible()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "debate"
    page.keyboard.press("/")
    page.keyboard.type("j k n")
    assert page.locator("#search").input_value() == "j k n"
    page.locator("#search").fill("")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("n")
    page.keyboard.type("look here")
    page.keyboard.press("Escape")
    assert page.locator("#list [title='look here']").is_visible()
    names = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        active = page.locator(":focus")
        if active.count():  # else it is the browser's turn
            names.add(active.evaluate("it => it.id || it.textContent"))
            assert active.evaluate("it => getComputedStyle(it).outlineStyle") in ("solid", "auto")
    assert {"search", "task", "run", "outcome", "compare", "clear", "export", "save", "after"} <= names


def test_an_opened_summary_stays_open(page):
    fold = page.locator(
        "article[aria-label='agent 2, round 2'] details", has_text="Summary this agent read"
    )
    fold.locator("summary").click()
    page.keyboard.press("j")
    assert count(page)[0] == 2 and fold.get_attribute("open") is not None
    assert fold.get_by_text("The others disagree").is_visible()
    fold.locator("summary").click()
    page.keyboard.press("j")
    assert fold.get_attribute("open") is None


def test_two_runs_are_compared(page, made):
    page.locator("#run").select_option("debate")
    page.locator("#compare").select_option("multiagent_ft")
    right = [[d.vote == d.problem.answer for d in debates] for debates in made.values()]
    improved, regressed = (sum(pair == kind for pair in zip(*right)) for kind in ((0, 1), (1, 0)))
    grid = page.get_by_role("table", name="Comparison of two runs")
    said = re.sub(r"\s+", " ", grid.inner_text())
    words = r"(\d+) improved, (\d+) regressed of \d+ problems from debate to multiagent_ft"
    more, less = map(int, re.search(words, said).groups())
    assert (
        abs(more - improved) < 9 and abs(less - regressed) < 9
    )  # equivalent answers need not be equal
    heads = grid.get_by_role("rowheader").all_inner_texts()
    assert heads == ["", "agent 1", "agent 2", "agent 3", "vote"]
    page.locator("#outcome").select_option("improved by comparison")
    assert count(page)[1] == more
    page.locator("#outcome").select_option("regressed by comparison")
    assert count(page)[1] == less
    answers = [made[run][0].turns[0][1].answer for run in made]
    page.locator("#clear").click()
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    first = grid.get_by_role("row").nth(1)
    marked = [*first.locator("del").all_inner_texts(), *first.locator("ins").all_inner_texts()]
    assert len(marked) == (0 if answers[0] == answers[1] else 2)
    grid.get_by_role("button", name="Open in multiagent_ft").click()
    assert "multiagent_ft" in page.locator("#debate .meta").first.inner_text()


def test_a_link_leads_to_the_same_view(page, file):
    page.locator("#task").select_option("mini_gsm")
    page.locator("th.last_right button").click()
    page.locator("#compare").select_option("multiagent_ft")
    page.keyboard.press("j")
    link = page.locator("#debate .meta a").get_attribute("href")
    seen = count(page), page.locator("#debate").inner_text()
    visit(page, file, link)
    assert (count(page), page.locator("#debate").inner_text()) == seen
    assert page.url.endswith(link)
    visit(page, file, "#sort=nonsense&task=nowhere&run=%3Cb%3E&debate=gone")
    assert count(page) == (1, 1000)


def test_formulas_are_mathml_and_what_is_none_stays_as_written(page):
    read = """text => {
        const it = document.createElement("p");
        it.append(...written(text));
        const parts = [...it.querySelectorAll("math > mrow *:not(mrow)")];
        return [it.textContent, parts.map(part => part.localName)];
    }"""
    for text, names in {
        r"so $\frac{1}{2}$ it": ["mfrac", "mn", "mn"],
        r"\boxed{x^2}": ["menclose", "msup", "mi", "mn"],
        r"\(\sqrt[3]{a_1}\)": ["mroot", "msub", "mi", "mn", "mn"],
        r"$90^\circ$": ["msup", "mn", "mo"],
        r"\boxed{\text{no solution}}": ["menclose", "mtext"],
    }.items():
        assert page.evaluate(read, text)[1] == names
    for text in (
        "a ticket costs $5 and $6",
        r"$\href{javascript:alert(1)}{y}$",
        r"$\def\a{\a\a}\a$",
        r"\boxed{never closed",
        r"$\frac{1}{$",
        "$" + "{" * 240 + "$",
        r"\boxed{" * 5_000,
        "<b>$5</b>",
    ):
        assert page.evaluate(read, text) == [text, []]


def test_notes_stay_with_the_page_and_a_selection_is_exported(page, file, made, tmp_path):
    page.locator("#task").select_option("mini_gsm")
    page.locator("#run").select_option("debate")
    page.locator("#note").fill("</script><b>odd & nice")
    lines = [json.loads(line) for line in saved(page, "#export", tmp_path).read_text().splitlines()]
    wanted = [debate for debate in made["debate"] if debate.problem.task == "mini_gsm"]
    assert [Debate.from_dict(line["debate"]) for line in lines] == wanted
    assert lines[0]["note"] == "</script><b>odd & nice" and lines[1]["note"] == ""
    assert lines[0]["run"] == "debate" and isinstance(lines[0]["outcomes"], list)
    copy = saved(page, "#save", tmp_path)
    page.evaluate("localStorage.clear()")
    visit(page, copy, "#task=mini_gsm&run=debate")
    assert page.locator("#note").input_value() == "</script><b>odd & nice"
    visit(page, file, "#task=mini_gsm&run=debate")
    assert page.locator("#note").input_value() == ""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200, 1600])
def test_every_width_and_theme(page, file, screenshots, theme, width):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    visit(page, file, "#compare=multiagent_ft&debate=")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    over = "n => n.scrollWidth > n.clientWidth + 1"
    assert not any(page.locator(name).evaluate(over) for name in ("#list", "#debate"))
    table, debate = page.locator("#list").bounding_box(), page.locator("#debate").bounding_box()
    assert (table["y"] == debate["y"]) == (width >= 1200)  # side by side
    colours = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    dark, light = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert (dark < light) == (theme == "dark")
    page.screenshot(path=screenshots / f"explorer_page_{theme}_{width}.png")


def test_how_fast_it_is(page, made, file, tmp_path, measured):
    """Targets: 1,000 debates open in 2 s, 10,000 in 10 s, next and filter take less than 100 ms."""
    many = {f"run {n}": made["debate"] + made["multiagent_ft"] for n in range(10)}
    begun = time.perf_counter()
    explorer = DebateExplorer(many)
    seconds = {"10,000 made in Python (s)": time.perf_counter() - begun}
    files = {"1,000": file, "10,000": explorer.save(tmp_path / "many.html")}
    for name, path in files.items():
        begun = time.perf_counter()
        visit(page, path)
        seconds[f"{name} opened (s)"] = time.perf_counter() - begun
    taken = page.evaluate("""() => {
        const time = (act) => { const begun = performance.now(); act(); document.body.offsetHeight;
            return performance.now() - begun; };
        const press = (key) => time(() => document.body.dispatchEvent(
            new KeyboardEvent("keydown", { key, bubbles: true })));
        const choose = (id, value) => time(() => { const it = document.getElementById(id);
            it.value = value; it.dispatchEvent(new Event("change")); });
        const sort = (name) => time(() => document.querySelector(`th.${name} button`).click());
        const search = (words) => time(() => { state.q = words; filter(); });
        return {
            "next": [...Array(20)].map(() => press("j")),
            "filter": ["vote wrong", "tie", "", "vote right"].map((name) => choose("outcome", name)),
            "compare": ["run 3", "run 5", ""].map((name) => choose("compare", name)),
            "search": ["boxed", "stamps", "boxed{4}", "nothing", ""].map(search),
            "sort": ["question", "after", "outcome", "place"].map(sort),
        };
    }""")
    measured["the explorer's page of 10,000 debates (ms)"] = {
        name: {"median": round(statistics.median(waits)), "worst": round(max(waits))}
        for name, waits in taken.items()
    }
    measured["the explorer's page"] = {name: round(value, 2) for name, value in seconds.items()}
    assert seconds["10,000 opened (s)"] < 30 and max(taken["next"]) < 2_000  # a hang; targets are above


def test_it_outlives_its_kernel_and_is_in_a_reopened_notebook_in_jupyterlabs_theme(server, notebook):
    write_notebook(server.folder / "notebooks" / "explorer.ipynb", CELL)
    notebook.open("notebooks/explorer.ipynb").run_all().wait_for_end()
    assert notebook.errors() == []
    frame = notebook.panel.frame_locator(".maft-explorer")
    frame.locator("#outcome").select_option("vote right")
    notebook.restart_kernel()
    assert frame.locator("#outcome").input_value() == "vote right"
    frame.locator("#clear").click()
    frame.locator("#list tbody tr[id]").nth(1).click()
    assert frame.locator("#count").inner_text() == "2 of 80 debates"
    notebook.save()
    server.end_kernels()
    notebook.open("notebooks/explorer.ipynb")
    frame.locator("body.ready").wait_for()
    assert frame.locator("#count").inner_text() == "1 of 80 debates"
    frame.locator("#list").focus()
    cells = notebook.panel.locator(".jp-Cell").count()
    notebook.press("j", "ArrowDown", "d", "d", "x", "b")  # the notebook hears none of them
    assert frame.locator("#count").inner_text() == "3 of 80 debates"
    assert notebook.panel.locator(".jp-Cell").count() == cells
    frame.locator("#compare").select_option("multiagent_ft")
    frame.locator(".compare").wait_for()
    with notebook.page.expect_download() as download:
        frame.locator("#export").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == 80
    for theme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 24, 27)")):
        notebook.look(theme, 1400)
        colour = "() => getComputedStyle(document.body).backgroundColor"
        assert frame.locator("body").evaluate(colour) == paper
    assert notebook.complaints == []
