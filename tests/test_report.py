"""The static site of the executed notebooks: whole, linked, without scripts and without the network."""

import re
from html import escape
from urllib.parse import unquote

import nbformat
import papermill
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from maft_lib import command, gallery, report
from maft_lib.lab.explorer import DebateExplorer
from maft_lib.plots import save_figure
from maft_lib.profiles import NOTEBOOKS, load_config
from maft_lib.report import write_report
from tests.conftest import debate

PROSE = r"""# Section 3.3: a *first* <b>look</b>

For $x < y_1$ and \\(z\\) it costs \$5, and

$$S_i^t = S_i^{t-1}\left(1 + \frac{1}{2}\right).$$

## What follows
"""
HOSTILE = '<script>fetch("https://a.b")</script><img src="https://a.b/x.png">'


def home(config):
    folder = config.path(config.runs_dir) / "smoke" / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def executed(config, name, *cells, seconds=12.3, exception=None, end="2025-03-01T12:35:00+00:00"):
    timed = {"start_time": "2025-03-01T12:34:00+00:00", "end_time": end, "duration": seconds,
             "exception": exception}  # fmt: skip
    notebook = new_notebook(cells=list(cells), metadata={"papermill": timed})
    nbformat.write(notebook, home(config) / f"{name}.ipynb")


def code(*outputs, source="1 + 1"):
    return new_code_cell(source, outputs=list(outputs), execution_count=1)


def shown(**data):
    return new_output("display_data", {name.replace("_", "/"): value for name, value in data.items()})


def parsed(site, name):
    return BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


@pytest.fixture
def site(config):
    """A site of one notebook that ended, two that failed and one that was cut short."""
    save_figure(Figure(figsize=(1, 1)), config.figures / "fig01", "A caption.")
    table = shown(text_html="<table><tr><td>50.0</td></tr></table>", text_plain="50.0")
    executed(config, "03_3_quantitative_results", new_markdown_cell(PROSE), code(table))
    error = new_output(
        "error", ename="RuntimeError", evalue=f"no memory {HOSTILE}", traceback=["no memory"]
    )
    cells = [new_markdown_cell("# Ablations"), code(error, source='save("fig01")')]
    executed(config, "04_1_ablations", *cells, exception=True)
    explorer = DebateExplorer([debate([["2"], ["3"]], "2")])._repr_html_()
    acting = explorer.replace("&lt;/body&gt;", f"{escape(HOSTILE)}&lt;/body&gt;")
    hostile = shown(text_html=f'{HOSTILE}<iframe srcdoc="{escape(HOSTILE)}"></iframe>{acting}')
    widget = new_output(
        "display_data",
        {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "a widget"},
    )
    program = new_output(
        "display_data", {"application/javascript": "alert(1)", "text/plain": "a program"}
    )
    executed(config, "D_cooperative", code(hostile, widget, program), end=None, seconds=None)
    (home(config) / "E_additional_comparisons.ipynb").write_text('{"cells": [')
    executed(config, "G_specialization_model", code(), exception=True)  # its kernel was killed
    return write_report(config).parent


def test_pages_are_linked_and_every_link_leads_somewhere(site):
    pages = sorted(path.stem for path in site.glob("*.html"))
    names = ["03_3_quantitative_results", "04_1_ablations", "D_cooperative", "G_specialization_model"]
    assert pages == [*names[:3], "D_cooperative_debates_1", names[3], "index"]
    for name in pages:
        page = parsed(site, name)
        ids = {tag["id"] for tag in page.find_all(id=True)}
        for target in [tag.get("href") or tag["src"] for tag in page.find_all(["a", "img"])]:
            if target.startswith("#"):
                assert unquote(target[1:]) in ids
            elif not target.startswith(("data:", "https://a.b")):
                assert (site / unquote(target)).is_file(), target
    way = [link["href"] for link in parsed(site, "04_1_ablations").find("nav").find_all("a")]
    assert way == ["03_3_quantitative_results.html", "index.html", "D_cooperative.html"]


def test_the_front_page_is_the_contact_sheet_with_all_notebooks(site):
    page = parsed(site, "index")
    assert page.h1.text == "Notebooks, figures and tables, profile smoke"
    assert (site / page.article.img["src"]).read_bytes()[:4] == b"\x89PNG"
    assert page.article.find("a", href="04_1_ablations.html")  # which names the figure
    listed = [" ".join(item.text.split()) for item in page.find(class_="notebooks").find_all("li")]
    assert len(listed) == len(NOTEBOOKS)
    said = {line.split("_")[0]: line for line in listed}
    assert "Section 3.3: a *first* <b>look</b> 03_3_quantitative_results took 12 s" in listed
    assert any(
        line.startswith("Ablations 04_1_ablations failed with RuntimeError: no memory")
        for line in listed
    )
    assert said["D"] == "D_cooperative was cut short, or is still running · its debates"
    assert said["G"] == "G_specialization_model failed without an error to show"
    assert said["E"] == "E_additional_comparisons has not been executed with this profile"
    assert said["F"] == "F_more_agents has not been executed with this profile"
    assert len(page.select(".notebooks .failed")) == len(NOTEBOOKS) - 1


def test_formulas_are_mathml(site):
    page = parsed(site, "03_3_quantitative_results")
    shown = [math.get("display") == "block" for math in page.find_all("math")]
    assert shown == [False, False, True]
    assert page.find("mfrac") and "costs $5, and" in page.text and "\\frac" not in page.main.p.text
    assert page.title.text == "Section 3.3: a *first* <b>look</b>, profile smoke"
    assert [cell.text for cell in page.find_all("td")] == ["50.0"]


def test_an_explorer_is_a_file_beside_its_page(site):
    frame = parsed(site, "D_cooperative").iframe
    assert " ".join(frame["sandbox"]) == report.SANDBOX and "srcdoc" not in frame.attrs
    kept = (site / frame["src"]).read_text(encoding="utf-8")
    assert kept == DebateExplorer([debate([["2"], ["3"]], "2")]).page  # without what was put into it
    assert parsed(site, "index").find("nav").find("a", href=frame["src"]).text == "its debates"


def test_nothing_runs_and_nothing_is_fetched(site):
    for path in (path for path in site.glob("*.html") if "debates" not in path.stem):
        text = path.read_text(encoding="utf-8")
        page = BeautifulSoup(text, "html.parser")
        assert not page.find_all(["script", "link"])
        assert not page.find_all(srcdoc=True)
        styles = "".join(style.text for style in page.find_all("style"))
        assert not re.search(r"url\(|@import", styles)
        policy = page.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
        assert policy.startswith("default-src 'none'") and "http" not in policy
        before = text[: text.index("Content-Security-Policy")]
        assert "<style" not in before and "<img" not in before  # it holds for all that follows
        sources = [tag["src"] for tag in page.find_all(src=True)]
        assert path.stem == "D_cooperative" or not [s for s in sources if s.startswith("http")]
    page = parsed(site, "D_cooperative")
    assert "a widget" in page.text and "a program" in page.text


def test_a_second_report_is_written_over_the_first_and_is_the_same(site, config):
    before = {path.name: path.read_bytes() for path in site.iterdir()}
    (site / "index.html").write_text("an earlier one")
    assert write_report(config).parent == site
    assert {path.name: path.read_bytes() for path in site.iterdir()} == before


def test_a_report_that_fails_leaves_the_first(site, config, monkeypatch):
    before = {path.name: path.read_bytes() for path in site.iterdir()}
    monkeypatch.setattr(gallery, "sheet", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(config)
    assert {path.name: path.read_bytes() for path in site.iterdir()} == before


def test_without_executed_notebooks_it_says_what_to_do(config, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MAFT_RUNS_DIR", str(tmp_path / "empty"))
    assert command.main(["report", "smoke"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "error: no notebook of the profile smoke has been executed: "
        "say `make figures PROFILE=smoke` first.\n"
    )
    assert command.main(["report", "smok"]) == 2 and "did you mean 'smoke'" in capsys.readouterr().err
    assert not (tmp_path / "empty").exists()


CELLS = """
from matplotlib.figure import Figure
figure = Figure(figsize=(1, 1))
figure.gca().plot([0, 1])
import base64, io
from IPython.display import Image, display
picture = io.BytesIO()
figure.savefig(picture)
display(Image(picture.getvalue()))
print("\\x1b[31mred\\x1b[0m <i>")
"""


@pytest.mark.notebooks
def test_of_notebooks_that_papermill_has_executed(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MAFT_RUNS_DIR", config.runs_dir)
    language = {"name": "python", "file_extension": ".py"}
    sources = {"00_quickstart": CELLS, "02_1_multiagent_debate": "raise ValueError('never mind')"}
    for name, source in sources.items():
        cells = [
            new_markdown_cell(f"# {name[3:]}"),
            new_code_cell(source),
            new_code_cell("print('end')"),
        ]
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata={"language_info": language}), path)
        try:
            papermill.execute_notebook(
                path, home(config) / path.name, kernel_name="python3", progress_bar=False
            )
        except papermill.PapermillExecutionError:
            assert name == "02_1_multiagent_debate"
    capsys.readouterr()
    assert command.main(["report", "smoke"]) == 0
    assert capsys.readouterr().out.endswith("index.html: open it in a browser.\n")
    page = parsed(config.own("runs_dir") / "report", "00_quickstart")
    assert page.img["src"].startswith("data:image/png") and page.img["alt"]
    assert page.find(class_="ansi-red-fg").text == "red" and not page.find("i")
    failed = parsed(config.own("runs_dir") / "report", "02_1_multiagent_debate")
    assert "failed with ValueError: never mind" in failed.find(class_="outcome").text
    assert "never mind" in failed.find(class_="output_error").text


def test_all_formulas_of_the_notebooks_are_read():
    """None is left as LaTeX: what latex2mathml cannot read would stand there as text."""
    folder = load_config("smoke").path("notebooks")
    for path in sorted(folder.glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                page = BeautifulSoup(report.markdown_html(cell.source), "html.parser")
                for source in page.select("code"):
                    source.decompose()
                left = re.findall(r"\$|\\[a-zA-Z]+", page.text)
                assert not left, f"{path.stem}: {left}"
