"""The contact sheet: each figure and table once, with the run that made it, and nothing that runs."""

import os
import shutil

import nbformat
import papermill
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure

from maft_lib import command, gallery, notebooks
from maft_lib.plots import save_figure
from maft_lib.profiles import load_config
from maft_lib.reported import about

TABLE = "| method | accuracy |\n|:--|--:|\n| Base | **{cell}** |\n\n† may be luck.\n"
FAILING = """
from pathlib import Path
Path("figures/own", "table02").with_suffix(".md").write_text({table!r})
raise RuntimeError("no memory left")
"""

FIGURES = ("figures", "--profile", "own")


def draw(config, stem, caption=""):
    save_figure(Figure(figsize=(1, 1)), config.figures / stem, caption)


def tabulate(config, stem, cell="50.0"):
    (config.figures / f"{stem}.md").write_text(TABLE.format(cell=cell))


def executed(config, name, *stems, start="2025-03-01T12:34:56+00:00", failed=None):
    """An executed copy whose code names files of these stems."""
    timed = {"start_time": start, "end_time": start, "duration": 88.6, "exception": failed}
    cells = [nbformat.v4.new_code_cell(f'save("{stem}")') for stem in stems]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"papermill": timed})
    folder = config.path(config.runs_dir) / config.profile / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def articles(config):
    """The entries of a new sheet by title, in their order."""
    page = BeautifulSoup(gallery.write_gallery(config).read_text(), "html.parser")
    entries = page.find_all("article")
    found = {entry.h3.text: entry for entry in entries}
    assert len(found) == len(entries)  # each once
    targets = {article["id"] for article in entries}
    assert {link["href"][1:] for link in page.nav.find_all("a")} <= targets
    return found


def told(entry):
    return " ".join(entry.find(class_="made").text.split())


def test_each_stands_once_with_number_profile_notebook_and_time(config):
    draw(config, "fig05", "Accuracy over iterations.")
    (config.figures / "fig05.csv").write_text("a\n1\n")
    tabulate(config, "table03")
    executed(config, "04_3_zero_shot", "fig05", start="2025-03-01T23:34:56-02:00")
    executed(config, "D_cooperative", "table03")
    figure, table = (found := articles(config)).values()
    assert list(found) == ["Figure 5", "Table 3"]
    when = "2025-03-02 01:34 UTC"
    assert told(figure) == f"profile smoke · {when} · 04_3_zero_shot took 89 s · CSV · PDF · PNG"
    assert "smoke · 2025-03-01 12:34 UTC · D_cooperative took 89 s" in told(table)
    assert [image["src"] for image in figure.find_all("img")] == ["fig05.png"]
    assert figure.img["alt"] == figure.figcaption.text == "Accuracy over iterations."
    assert [cell.text for cell in table.find_all("td")] == ["Base", "50.0"] and table.strong
    assert "† may be luck." in table.text
    assert (
        table.find(class_="caption").text == "The paper's Table 3: " + about("table_3")["title"] + "."
    )
    *links, up = figure.find_all("a")
    assert all((config.figures / link["href"]).is_file() for link in links)
    page = BeautifulSoup((config.figures / gallery.SHEET).read_text(), "html.parser")
    assert page.find(id=up["href"][1:]).find("a", href="#fig05").img["src"] == "fig05.png"  # thumbnail


def test_order_and_names(config):
    stems = [
        "table10",
        "table_cost",
        "table02_published",
        "table02",
        "dataset_sizes",
        "table02_by_level",
    ]
    for stem in stems:
        tabulate(config, stem)
    draw(config, "fig11")
    draw(config, "fig9")
    (config.figures / "table10_differences.csv").write_text(
        "a\n1\n"
    )  # no other format, and still there
    (config.figures / "notes.txt").write_text("no figure")
    assert list(articles(config)) == [
        *("Figure 9", "Figure 11", "Table 2", "Table 2: by level", "Table 2: published"),
        *("Table 10", "Table 10: differences", "Dataset sizes", "Table: cost"),
    ]
    page = BeautifulSoup((config.figures / gallery.SHEET).read_text(), "html.parser")
    contents = [link.text for link in page.nav.find_all("a")]
    assert contents == ["Figure 9", "Figure 11", "Table 2", "Table 10", "Dataset sizes", "Table: cost"]


def test_nothing_from_files_becomes_html(config):
    hostile = '"><script>alert(1)</script><img src=x onerror="alert(1)">'
    draw(config, "fig01", hostile)
    tabulate(config, "table01", hostile + " ![p](http://a.b/x.png) <http://a.b> [l](javascript:f)")
    tabulate(config, "a<b>&\"' 100% #1")
    executed(config, "<i>name", "fig01")
    found = articles(config)
    page = BeautifulSoup((config.figures / gallery.SHEET).read_text(), "html.parser")
    assert not page.find_all(["script", "i", "b"]) and len(page.article.find_all("img")) == 1
    assert "<i>name took" in told(found["Figure 1"])
    assert found["Figure 1"].img["alt"] == found["Figure 1"].figcaption.text == hostile
    assert hostile in found["Table 1"].text and "![p](http://a.b/x.png)" in found["Table 1"].text
    assert all(":" not in link["href"] for link in page.find_all("a"))
    assert "A<b>&\"' 100% #1" in found
    assert 'href="a%3Cb%3E%26%22%27%20100%25%20%231.md"' in str(page)


def test_what_no_run_claims_is_shown(config):
    draw(config, "fig01", "Old.")
    (config.figures / "fig02.png").write_bytes(b"cut short")
    tabulate(config, "table01")
    executed(config, "03_3_quantitative_results", "table01")
    os.utime(config.figures / "table01.md", (0, 0))  # written before that began
    copies = config.path(config.runs_dir) / "smoke" / "notebooks"
    (copies / "04_1_ablations.ipynb").write_text('{"metadata": {"papermill": {}')
    (copies / "D_cooperative.ipynb").write_text('{"metadata": {"papermill": {}}}')
    found = articles(config)
    assert list(found) == ["Figure 1", "Figure 2", "Table 1"]
    assert all(told(e).startswith("profile smoke · made earlier") for e in found.values())
    assert found["Figure 2"].img["alt"] == "Figure 2"
    assert [cell.text for cell in found["Table 1"].find_all("td")] == ["Base", "50.0"]


def test_the_last_of_two_notebooks_that_name_a_file_counts(config):
    tabulate(config, "table01")
    executed(config, "B", "table01", start="2025-03-01T12:00:00+00:00")
    executed(config, "A", "table01", start="2025-03-01T12:00:01+00:00", failed=True)
    assert "A failed without an error to show" in told(articles(config)["Table 1"])


def test_written_twice_it_has_the_same_bytes_and_needs_no_other_file(config):
    draw(config, "fig01", "Zürich ± 1")
    executed(config, "03_4_multiple_iterations", "fig01")
    first = gallery.write_gallery(config).read_bytes()
    assert gallery.write_gallery(config).read_bytes() == first
    page = BeautifulSoup(first.decode(), "html.parser")
    assert not page.find_all(["script", "link", "iframe"]) and "Zürich ± 1" in page.text
    assert "light-dark(" in page.style.text and "url(" not in page.style.text


def test_an_empty_folder_has_a_sheet(config):
    assert not articles(config)
    assert "Nothing has been made yet" in (config.figures / gallery.SHEET).read_text()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a profile of its own and no notebooks yet; returns the profile's config."""
    monkeypatch.delenv("MAFT_RUNS_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "own.yml").write_text("seed: 3")
    put(tmp_path, "03_3_quantitative_results", '"table01"')
    put(tmp_path, "D_cooperative", '"table03"')
    assert load_config("own").figures.is_dir()  # which the cells below write into
    return load_config("own")


def put(root, name, code):
    cells = [nbformat.v4.new_code_cell(code)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")


def stand_in(monkeypatch, config, cell, start):
    """Notebooks that write a table without a kernel: `make figures` around them is the real one."""

    def execute_notebook(source, copy, **_):
        shutil.copy(source, copy)
        stem = {"03_3_quantitative_results": "table01", "D_cooperative": "table03"}[source.stem]
        tabulate(config, stem, cell)
        notebook = nbformat.read(copy, as_version=4)
        timed = {"start_time": start, "end_time": start, "duration": 1.0, "exception": None}
        notebook.metadata["papermill"] = timed
        nbformat.write(notebook, copy)

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)


def test_one_notebook_run_again_leaves_the_others_in_the_sheet(project, monkeypatch, capsys):
    names = ["03_3_quantitative_results", "D_cooperative"]
    stand_in(monkeypatch, project, "1", "2025-01-01T00:00:00+00:00")
    notebooks.run_notebooks("own", names)
    stand_in(monkeypatch, project, "2", "2025-02-02T00:00:00+00:00")
    assert command.main([*FIGURES, "D_cooperative"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "[1/1] D_cooperative 0 s" and lines[-1].endswith("/figures/own/index.html")
    page = BeautifulSoup((project.figures / gallery.SHEET).read_text(), "html.parser")
    first, second = map(told, page.find_all("article"))
    assert "own · 2025-01-01 00:00 UTC · 03_3_quantitative_results" in first
    assert "own · 2025-02-02 00:00 UTC · D_cooperative" in second


def test_a_notebook_claims_only_what_it_names(project, monkeypatch):
    tabulate(project, "table07")
    stand_in(monkeypatch, project, "1", "2025-01-01T00:00:00+00:00")
    notebooks.run_notebooks("own", ["D_cooperative"])
    page = BeautifulSoup((project.figures / gallery.SHEET).read_text(), "html.parser")
    assert ["made earlier" in told(entry) for entry in page.find_all("article")] == [False, True]


def test_a_notebook_that_never_began_leaves_what_its_last_run_told(project, monkeypatch):
    stand_in(monkeypatch, project, "1", "2025-01-01T00:00:00+00:00")
    notebooks.run_notebooks("own", ["D_cooperative"])
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        notebooks.run_notebooks("own", ["D_cooperative"])
    assert "2025-01-01 00:00 UTC · D_cooperative took" in told(articles(project)["Table 3"])


def test_a_failing_notebook_leaves_a_sheet_with_what_it_wrote(project, tmp_path, capfd):
    tabulate(project, "table01")
    put(tmp_path, "04_1_ablations", FAILING.format(table=TABLE.format(cell="1")))
    assert command.main([*FIGURES, "04_1_ablations", "D_cooperative", "--jobs", "1"]) == 1
    assert "RuntimeError: no memory left" in capfd.readouterr().err
    page = BeautifulSoup((project.figures / gallery.SHEET).read_text(), "html.parser")
    first, second = map(told, page.find_all("article"))
    assert "made earlier" in first
    assert "04_1_ablations failed with RuntimeError: no memory left" in second


WAITING = """
import time
from pathlib import Path
Path("{own}").touch()
give_up = time.monotonic() + 60
while not Path("{other}").exists() and time.monotonic() < give_up:
    time.sleep(0.05)
assert Path("{other}").exists()
Path("figures/own", "{stem}").with_suffix(".md").write_text({table!r})
"""


@pytest.mark.notebooks
def test_two_notebooks_run_side_by_side_and_claim_their_own(project, tmp_path, capfd):
    table = TABLE.format(cell="1")
    names = ["Z_miniature_model", "00_quickstart"]
    for own, other, stem in zip(names, reversed(names), ("table01", "table02")):
        put(tmp_path, own, WAITING.format(own=own, other=other, stem=stem, table=table))
    assert command.main([*FIGURES, *names, "--jobs", "2"]) == 0, capfd.readouterr().err
    assert "[2/2]" in capfd.readouterr().out
    sheet = articles(project)
    assert "Z_miniature_model took" in told(sheet["Table 1"])
    assert "00_quickstart took" in told(sheet["Table 2"])


@pytest.mark.notebooks
def test_a_notebook_waits_for_those_whose_runs_it_shares(project, tmp_path, capfd):
    record = "with open('order', 'a') as file: file.write('{name} ')"
    names = ["02_3_multiagent_finetuning", "03_3_quantitative_results", "03_4_multiple_iterations"]
    for name in names:
        put(tmp_path, name, record.format(name=name))
    assert command.main([*FIGURES, *names, "--jobs", "3"]) == 0, capfd.readouterr().err
    assert (tmp_path / "order").read_text().split() == names


@pytest.mark.notebooks
def test_side_by_side_a_failure_stops_the_run_and_says_why(project, tmp_path, capfd):
    put(tmp_path, "Z_miniature_model", "raise RuntimeError('no memory left')")
    put(tmp_path, "02_1_multiagent_debate", "open('begun', 'w')")
    names = ["Z_miniature_model", "03_3_quantitative_results", "02_1_multiagent_debate"]
    put(tmp_path, names[1], "import time; time.sleep(2); open('finished', 'w')")
    assert command.main([*FIGURES, *names, "--jobs", "2"]) == 1
    assert "RuntimeError: no memory left" in capfd.readouterr().err
    assert not (tmp_path / "begun").exists() and (project.figures / gallery.SHEET).is_file()
