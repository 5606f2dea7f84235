"""Pictures of what a user sees, light and dark, wide and narrow, for a person to look at."""

import pytest

from tests.browser.lab import write_notebook

pytestmark = pytest.mark.browser
BEGIN = """from maft_lib import load_config
from maft_lib.lab.explorer import DebateExplorer
from maft_lib.lab.studio import DebateStudio
from tests.browser.records import ordinary_debates
debates = ordinary_debates(60)"""
SHOWN = {
    "debate": "debates[-1]",
    "explorer": "DebateExplorer({'debate': debates, 'multiagent_ft': ordinary_debates(60, 1, 0.7)})",
    "studio": "DebateStudio()",
}
WIDTHS = {"wide": 1400, "narrow": 480}


@pytest.fixture
def ready(server, notebook):
    """A notebook with a debate, an explorer that compares, and a studio that has finished."""
    write_notebook(server.folder / "notebooks" / "pictures.ipynb", BEGIN, *SHOWN.values())
    notebook.open("notebooks/pictures.ipynb").run_all().wait_for_end()
    assert notebook.errors() == []
    panel = notebook.panel
    frame = panel.frame_locator(".maft-explorer")
    frame.locator("#compare").select_option("multiagent_ft")
    frame.locator(".compare").wait_for()
    panel.locator(".maft-studio .maft-draw").click()
    panel.locator(".maft-studio .maft-status", has_text="problem of").wait_for()
    panel.locator(".maft-studio .maft-start").click()
    panel.locator(".maft-studio .maft-status", has_text="Finished").wait_for(timeout=60_000)
    return notebook


def test_pictures(ready, screenshots):
    for theme in ("light", "dark"):
        for size, width in WIDTHS.items():
            ready.look(theme, width, 2800)
            for name in SHOWN:
                picture = screenshots / f"{name}_{theme}_{size}.png"
                cell = ready.cell_with(SHOWN[name]).locator(".jp-Cell-outputWrapper")
                cell.scroll_into_view_if_needed()
                cell.screenshot(path=picture)
                assert picture.stat().st_size > 5_000
                assert fits(cell), f"{name} is wider than the page at {width} px"


def fits(cell):
    """Whether nothing in an output reaches beyond its right edge, but for what scrolls by itself."""
    return cell.evaluate("""cell => {
        const area = cell.querySelector('.jp-OutputArea-output');
        return area.scrollWidth <= area.clientWidth + 1;
    }""")
