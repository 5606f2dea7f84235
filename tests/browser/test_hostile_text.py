"""What a model writes stays text, in JupyterLab and in the page that nbconvert makes of a notebook."""

import subprocess
import sys

import pytest

from tests.browser.lab import write_notebook
from tests.browser.records import ATTACKS, EVERYTHING
from tests.browser.server import own_environment

pytestmark = pytest.mark.browser
BEGIN = """from IPython.display import HTML, display
from maft_lib import load_config
from tests.scripted import ScriptedBackend
from maft_lib.lab.explorer import DebateExplorer
from maft_lib.lab.studio import DebateStudio
from tests.browser.records import ATTACKS, EVERYTHING, hostile_debate"""
AFTER = "print('the page goes on')"
RECORDS = {
    "debate": "hostile_debate()",
    "problem": "hostile_debate().problem",
    "config": "load_config('smoke', model_name_or_path=ATTACKS['script'])",
}
EXPLORER = "DebateExplorer({name: [hostile_debate()] for name in ATTACKS.values()})"
STUDIO = """config = load_config("smoke", task="mini_math", model_name_or_path=ATTACKS["image"])
DebateStudio(config, backend=ScriptedBackend(lambda request: EVERYTHING))"""
# Elements and attributes that only an attack could have put into an output.
_BREACHES = """() => [...document.querySelectorAll('.maft, .maft-explorer, .maft-studio')].flatMap(it =>
    [...it.querySelectorAll('*')].filter(node => !node.matches(
        'iframe.maft-explorer[sandbox="allow-scripts allow-downloads"]'  // our own, of earlier debates
    )).filter(node =>
        ['SCRIPT', 'IMG', 'SVG', 'IFRAME'].includes(node.tagName.toUpperCase())
        || [...node.attributes].some(a =>
            /^on/i.test(a.name) || (a.name === 'href' && /javascript/i.test(a.value))
        )
    ).map(node => node.outerHTML.slice(0, 200)))"""
# An image that cannot be loaded, asked for after all others: then theirs have had their chance.
_LAST_IMAGE = """() => new Promise(failed => {
    const image = new Image();
    image.onerror = failed;
    image.src = 'x';
})"""


@pytest.fixture
def shown(server, notebook):
    """Runs a notebook of cells that show something; returns its outputs."""

    def run(*sources):
        folder = server.folder / "notebooks"
        write_notebook(folder / "scratch.ipynb", BEGIN, *sources, AFTER)
        notebook.open("notebooks/scratch.ipynb").run_all().wait_for_end()
        assert notebook.errors() == []
        return notebook.panel.locator(".jp-OutputArea")

    return run


def squeezed(text):
    return " ".join(text.split())


def assert_read(texts, names=tuple(ATTACKS)):
    """Each attack can be read where it was shown, but a link in a formula, of which the text stays."""
    text = squeezed(" ".join(texts))
    assert [name for name in names if name != "link" and squeezed(ATTACKS[name]) not in text] == []


def assert_records_read(place):
    for kind in ("debate", "problem"):
        assert_read(place.locator(f".maft-{kind}").all_text_contents())
    assert_read(place.locator(".maft-config").all_text_contents(), ["script"])


def assert_explorer_read(frame):
    """The explorer's page shows each attack as text; nothing of it was run or became an element."""
    body = frame.locator("body.ready")
    body.wait_for()
    drawn = [name for name in ATTACKS if name != "formula"]  # which is MathML here, without its source
    assert_read(frame.locator("#debate").all_text_contents(), drawn)
    assert body.evaluate("() => window.attacked || 0") == 0
    assert body.locator("img, svg, iframe, style, [onload], [onerror], [onfocus]").count() == 0


def assert_unharmed(page):
    """Nothing of the outputs was run, nothing in them could be, and the page around them is whole."""
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
    assert page.evaluate(_BREACHES) == []
    page.evaluate(_LAST_IMAGE)
    assert page.evaluate("window.attacked || 0") == 0
    assert page.locator(".jp-OutputArea", has_text="the page goes on").last.is_visible()


def test_the_trap_works(shown, notebook):
    shown("display(HTML(ATTACKS['script']))", "display(HTML(ATTACKS['image']))")
    notebook.page.wait_for_function("window.attacked == 2")


def test_records(shown, notebook):
    outputs = shown(*RECORDS.values())
    assert_records_read(outputs)
    assert notebook.complaints == []
    assert_unharmed(notebook.page)


def test_explorer(shown, notebook):
    outputs = shown(EXPLORER)
    frame = outputs.frame_locator(".maft-explorer")
    assert_explorer_read(frame)
    assert_read(frame.locator("#run option").all_text_contents())
    frame.locator("#compare").select_option(ATTACKS["image"])
    frame.locator(".compare").wait_for()
    assert_explorer_read(frame)
    frame.locator("#note").fill(EVERYTHING)
    frame.locator("#list .question span[title]").first.wait_for()
    assert_explorer_read(frame)
    assert notebook.complaints == []
    assert_unharmed(notebook.page)


def test_studio(shown, notebook):
    outputs = shown(STUDIO)
    outputs.locator(".maft-question textarea").fill(EVERYTHING)
    outputs.locator(".maft-truth input").fill(ATTACKS["image"])
    outputs.locator("button.maft-start").click()
    outputs.locator(".maft-status", has_text="Finished").wait_for()
    assert_read(outputs.locator(".maft-screen .maft-debate").all_text_contents())
    assert notebook.complaints == []
    assert_unharmed(notebook.page)


@pytest.fixture(scope="module")
def executed(server, tmp_path_factory):
    """A notebook that was executed elsewhere, as papermill leaves it."""
    home = tmp_path_factory.mktemp("elsewhere")
    sources = (*RECORDS.values(), EXPLORER, AFTER)
    path = write_notebook(server.folder / "notebooks" / "executed.ipynb", BEGIN, *sources)
    convert(path, home, "--to", "notebook", "--execute", "--inplace")
    return path


def convert(path, home, *options):
    command = [sys.executable, "-m", "nbconvert", *options, path.name]
    environment = own_environment(home)
    subprocess.run(command, cwd=path.parent, env=environment, check=True, capture_output=True)


def test_nbconvert(executed, context, screenshots, tmp_path):
    """The page that nbconvert makes, opened as a file, with no network to fetch anything from."""
    convert(executed, tmp_path, "--to", "html", "--output-dir", str(tmp_path))
    page = context.new_page()
    page.route("http*://**", lambda route: route.abort())
    page.goto((tmp_path / "executed.html").as_uri())
    assert_records_read(page)
    assert_explorer_read(page.frame_locator(".maft-explorer"))
    assert_unharmed(page)
    page.screenshot(path=screenshots / "nbconvert.png", full_page=True)
    page.close()


def test_a_notebook_that_is_not_trusted(executed, notebook, screenshots):
    """JupyterLab takes style and more out of outputs that others have made; the text stays."""
    notebook.open(f"notebooks/{executed.name}")
    notebook.panel.locator(".jp-OutputArea", has_text="the page goes on").last.wait_for()
    assert_records_read(notebook.panel)
    assert notebook.panel.get_by_text("trust this notebook to see them").is_visible()
    assert_unharmed(notebook.page)
    notebook.look("light", 1400, 6000)
    notebook.page.screenshot(path=screenshots / "not_trusted.png")
    assert notebook.complaints == []
