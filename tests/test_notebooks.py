"""Every notebook runs, under papermill and under nbval."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from maft_lib.command import main
from maft_lib.notebooks import NOTEBOOKS

ROOT = Path(__file__).parent.parent
SMOKE = yaml.safe_load((ROOT / "params" / "smoke.yml").read_text())


MADE = {
    "02_3_multiagent_finetuning": ["fig02.pdf", "fig_loss.pdf", "dataset_sizes.tex"],
    "03_3_quantitative_results": ["table01.tex", "table01_published.md", "table01_seeds.csv"],
    "03_4_multiple_iterations": ["fig01.pdf"],
    "04_1_ablations": ["table02.tex", "table02_published.md"],
    "04_2_diversity": ["fig03.pdf", "fig04.pdf", "table_diversity.tex"],
    "04_3_zero_shot": ["fig05.pdf", "fig12.pdf", "fig13.pdf", "fig_transfer.pdf", "table_transfer.tex"],
    "C_diversity_metrics": ["fig06.pdf", "fig07.pdf", "fig08.pdf", "fig09.pdf", "table_flips.tex"],
    "D_cooperative": ["table03.tex", "table03_published.md"],
    "E_additional_comparisons": ["fig10.pdf", "table05.tex", "table05_published.md"],
    "F_more_agents": ["table04.tex", "table04_published.md"],
    "G_specialization_model": ["fig_g_trajectories.pdf", "fig_g_measured.pdf", "table_g_society.tex"],
    "H_additional_evaluations": ["table06.tex", "table07.tex", "fig11.pdf"],
    "R_reviewers_questions": [
        "table_r_gsm.tex",
        "table_r_training_tokens.tex",
        "table_r_diversity.tex",
    ],
    "S_cost_and_speed": ["table_cost.tex", "table_speed.tex", "table_memory.tex", "fig_cost.pdf"],
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One store for all notebooks, as in a real run."""
    return tmp_path_factory.mktemp("notebooks")


def execute(name, folder, **parameters):
    return papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb",
        folder / f"{name}.ipynb",
        parameters={
            "runs_dir": str(folder / "runs"),
            "figures_dir": str(folder / "figures"),
            **parameters,
        },
        kernel_name="python3",
        progress_bar=False,
    )


def test_the_list_of_notebooks_is_complete():
    assert sorted(NOTEBOOKS) == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_anatomy(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    kinds = [cell.cell_type for cell in notebook.cells]
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    assert kinds[0] == "markdown" and notebook.cells[0].source.startswith("# ")
    assert tags[1] == ["parameters"] and "assert" in notebook.cells[-1].source
    assert not any(cell.get("outputs") for cell in notebook.cells)
    setup = next(c.source for c in notebook.cells[2:] if c.cell_type == "code")
    called = re.sub(r"\s", "", setup)
    assert f'maft.notebook_config(globals(),"{name}"' in called  # else its own parameters are not its


@pytest.mark.notebooks
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_under_papermill_with_the_smoke_profile(name, shared):
    execute(name, shared, **SMOKE)
    for made in MADE.get(name, []):
        assert (shared / "figures" / "smoke" / made).stat().st_size > 0


@pytest.mark.notebooks
@pytest.mark.parametrize("name", ["03_4_multiple_iterations", "C_diversity_metrics"])
def test_a_second_run_asks_no_model_and_makes_the_same_files(name, shared):
    figures = shared / "figures" / "smoke"
    execute(name, shared, **SMOKE)
    before = {path.name: path.read_bytes() for path in figures.iterdir()}
    again = execute(name, shared, **SMOKE)
    assert {path.name: path.read_bytes() for path in figures.iterdir()} == before
    printed = "".join(o.get("text", "") for o in again.cells[-1].outputs)
    assert re.search(r"\n0 (model calls|texts scored)", printed)


@pytest.mark.notebooks
def test_under_nbval(shared):
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", "-q"]
    environment = {**os.environ, "MAFT_PROFILE": "smoke", "MAFT_RUNS_DIR": str(shared / "runs")}
    notebooks = sorted(str(path) for path in (ROOT / "notebooks").glob("*.ipynb"))
    run = subprocess.run(
        [*command, *notebooks], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-3000:]


@pytest.mark.notebooks
def test_tables_of_the_notebooks_compile(shared, tmp_path):
    """All LaTeX that the notebooks above have written, in one document with booktabs."""
    if not shutil.which("pdflatex"):
        pytest.skip("there is no pdflatex here")
    paths = sorted((shared / "figures" / "smoke").glob("*.tex"))
    body = "\n\n".join(rf"\resizebox{{\textwidth}}{{!}}{{\input{{{path}}}}}" for path in paths)
    preamble = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "all.tex").write_text(f"{preamble}\n{body}\n\\end{{document}}\n")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert paths and run.returncode == 0, run.stdout[-2000:]


def test_the_command_line_names_what_is_wrong_with_another_notebook(capsys, tmp_path):
    (tmp_path / "own.yml").write_text("notebooks: {F_more_agents: {num_agents: 1}}")
    profile = str(tmp_path / "own.yml")
    assert main(["figures", "--profile", profile, "00_quickstart", "F_more_agents"]) == 2
    assert "num_agents: Input should be greater" in capsys.readouterr().err
