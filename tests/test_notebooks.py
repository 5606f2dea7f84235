"""Every notebook runs: from the wheel in an empty folder, under papermill and under nbval."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_client.manager import start_new_kernel

from maft_lib.command import main
from maft_lib.config import Config
from maft_lib.profiles import NOTEBOOKS, load_config
from maft_lib.setup_cell import studies_of
from maft_lib.store.files import read_records

ROOT = Path(__file__).parent.parent

MADE = {
    "02_3_multiagent_finetuning": ["fig02.pdf", "dataset_sizes.tex"],
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
def site(tmp_path_factory):
    """The wheel, installed into an empty folder; everything else comes from the environment."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder / "wheel", ROOT], check=True)
    (wheel,) = (folder / "wheel").glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder, wheel], check=True)
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """An empty folder of a user's."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def environment(site):
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("MAFT_")}
    return {**theirs, "PYTHONPATH": str(site)}


@pytest.fixture(scope="module")
def maft(site, here, environment):
    """The command `maft` of the wheel, called in the empty folder."""

    def call(*words):
        command = [sys.executable, site / "bin" / "maft", *words]
        return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)

    return call


@pytest.fixture(scope="module")
def clone(tmp_path_factory, environment):
    """A clone of this project, and the environment of one who works in it."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone, so git has nothing to say")
    folder = tmp_path_factory.mktemp("clone")
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    return folder, {**environment, "PYTHONPATH": str(folder)}


def untidy(folder):
    """What git says of a clone: nothing, if all that is new there is ignored."""
    command = ["git", "-C", folder, "status", "--porcelain"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def executed(maft, here):
    """What `maft figures --profile smoke` has printed; all that it made lies in the empty folder."""
    run = maft("figures", "--profile", "smoke")
    assert run.returncode == 0, run.stdout[-1000:] + run.stderr[-3000:]
    return run


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
def test_a_run_says_what_it_starts_how_far_it_is_and_where_all_of_it_is(executed, here):
    assert executed.stderr == ""
    first, expected, *lines, last = executed.stdout.splitlines()
    assert expected.startswith("expected, ") and " s on a CPU" in expected
    assert first.startswith("17 notebooks with the profile smoke") and str(here) in first
    assert len(lines) == 34 and sum(line.endswith("begins") for line in lines) == 17
    assert last.endswith(str(here / "figures" / "smoke" / "index.html"))


@pytest.mark.notebooks
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_makes_its_files_and_shows_no_words_of_a_library(name, executed, here):
    for made in MADE.get(name, []):
        assert (here / "figures" / "smoke" / made).stat().st_size > 0
    notebook = nbformat.read(here / "runs" / "smoke" / "notebooks" / f"{name}.ipynb", as_version=4)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        assert output.get("name") != "stderr", output.text
        assert not re.search(r"Warning|%\||it/s", str(output.get("text", ""))), output.text


@pytest.mark.notebooks
def test_what_is_estimated_is_what_the_notebooks_ran(executed, here):
    def key(method, task, c):
        return method, task, c.num_iterations, c.num_agents, c.num_train, c.num_eval, c.seed

    records, _ = read_records(here / "runs" / "studies")
    found = [(r["method"], r["task"], Config.of(r["config"])) for r in records.values()]
    ran = {key(*study) for study in found if not study[-1].eval_task}
    configs = {name: load_config("smoke", notebook=name) for name in NOTEBOOKS}
    planned = {key(*study) for name in NOTEBOOKS for study in studies_of(name, configs[name])}
    assert planned <= ran and {method for method, *_ in ran - planned} <= {"debate"}


@pytest.mark.notebooks
def test_a_second_run_in_a_clone_asks_no_model_and_leaves_git_clean(executed, site, here, clone):
    """With what the first run has left; the files are the same, byte for byte."""
    folder, environment = clone
    shutil.copytree(here / "runs", folder / "runs")
    names = ["03_4_multiple_iterations", "C_diversity_metrics"]
    command = [sys.executable, site / "bin" / "maft", "figures", "--profile", "smoke", *names]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    made = list((folder / "figures" / "smoke").glob("*.[!h]*"))  # all but the contact sheet
    assert {path.stem for path in made} >= {"fig01", "fig06", "fig07", "fig08", "fig09"}
    for path in made:
        assert path.read_bytes() == (here / "figures" / "smoke" / path.name).read_bytes(), path.name
    for name in names:
        again = nbformat.read(folder / "runs" / "smoke" / "notebooks" / f"{name}.ipynb", as_version=4)
        printed = "".join(o.get("text", "") for o in again.cells[-1].outputs)
        assert re.search(r"\n0 (model calls|texts scored)", printed)
    assert not untidy(folder)


@pytest.mark.notebooks
def test_under_nbval(executed, here, clone):
    """In the folder of the notebooks, with the profile that the environment names."""
    folder, environment = clone
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", "-q"]
    names = {"MAFT_PROFILE": "smoke", "MAFT_RUNS_DIR": str(here / "runs")}
    notebook = folder / "notebooks" / "02_1_multiagent_debate.ipynb"
    run = subprocess.run(
        [*command, notebook], cwd=folder, env=environment | names, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert not untidy(folder)


@pytest.mark.notebooks
def test_papermill_as_the_readme_has_it(site, here, environment):
    """A parameter that only the profile has is no news; one that nothing has ends in a sentence."""
    shipped = site / "maft_lib" / "shipped"
    papermill = [sys.executable, "-m", "papermill", "-k", "python3", "-f", shipped / "params/smoke.yml"]
    papermill += [shipped / "notebooks/02_1_multiagent_debate.ipynb", "out.ipynb", "-p"]
    # pip puts this beside Python, where every kernel finds it
    shutil.copytree(site / "etc" / "ipython", here / "ipython" / "profile_default")

    def run(*parameter):
        asked = {
            "cwd": here,
            "env": {**environment, "IPYTHONDIR": str(here / "ipython")},
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
        }
        done = subprocess.run([*papermill, *parameter], **asked, text=True)
        return done.returncode, done.stdout

    code, said = run("num_agents", "3")
    assert code == 0 and "Executing" in said and not re.search("unknown parameter|encrypt", said)
    code, said = run("num_agentz", "3")
    assert code == 1 and "Passed unknown parameter: num_agentz" in said
    cells = nbformat.read(here / "out.ipynb", as_version=4).cells
    (error,) = (o for cell in cells for o in cell.get("outputs", []) if o.output_type == "error")
    (sentence,) = error.traceback
    assert sentence.startswith("ConfigError: unknown parameter 'num_agentz': did you mean")
    assert said.rstrip().endswith(sentence)


@pytest.mark.notebooks
def test_tables_of_the_notebooks_compile(executed, here, tmp_path):
    """All LaTeX that the notebooks above have written, in one document with booktabs."""
    if not shutil.which("pdflatex"):
        pytest.skip("there is no pdflatex here")
    paths = sorted((here / "figures" / "smoke").glob("*.tex"))
    body = "\n\n".join(rf"\resizebox{{\textwidth}}{{!}}{{\input{{{path}}}}}" for path in paths)
    preamble = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "all.tex").write_text(f"{preamble}\n{body}\n\\end{{document}}\n")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert paths and run.returncode == 0, run.stdout[-2000:]


@pytest.mark.notebooks
def test_lab_opens_copies_at_the_root_of_the_project(site, environment, clone, tmp_path):
    token, log = "a-token", tmp_path / "log"
    options = ["--no-browser", "--allow-root", f"--IdentityProvider.token={token}", "--port=0"]
    command = [sys.executable, site / "bin" / "maft", "lab", *options]
    with log.open("w") as file:
        lab = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=file, stderr=file)
    try:
        place = wait_for(lambda: re.search(r"http://localhost:(\d+)(/lab/tree\S+)\?", log.read_text()))
        assert place[2] == "/lab/tree/maft_notebooks/00_quickstart.ipynb"
        address = f"http://localhost:{place[1]}/api/contents/maft_notebooks?token={token}"
        with urllib.request.urlopen(address) as answer:
            listed = {entry["name"] for entry in json.load(answer)["content"]}
        assert listed == {f"{name}.ipynb" for name in NOTEBOOKS}
        with urllib.request.urlopen(f"http://localhost:{place[1]}/api/kernels?token={token}", b""):
            pass
        time.sleep(3)  # in which a kernel would warn
    finally:
        for process in [*psutil.Process(lab.pid).children(recursive=True), lab]:
            process.terminate()
        lab.wait()
    assert not re.search(r"^\[W|WARN|Skipped", log.read_text(), re.M), log.read_text()
    shutil.copytree(tmp_path / "maft_notebooks", clone[0] / "maft_notebooks")
    assert not untidy(clone[0])


def wait_for(found, seconds=90):
    """What `found` returns as soon as it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if it := found():
            return it
        time.sleep(0.2)
    raise TimeoutError


@pytest.mark.notebooks
def test_an_interrupted_cell_says_what_is_kept(environment):
    """In one line, as our own errors; others keep their traceback."""
    manager, client = start_new_kernel(env=environment)
    try:
        asked = client.execute("import maft_lib, time\nprint('begun')\ntime.sleep(60)")
        said = iter(lambda: client.get_iopub_msg(timeout=60), None)
        next(m for m in said if m["msg_type"] == "stream")
        manager.interrupt_kernel()
        replies = iter(lambda: client.get_shell_msg(timeout=60), None)  # late ones to the start too
        reply = next(m for m in replies if m["parent_header"]["msg_id"] == asked)
        assert reply["content"]["traceback"] == [
            "Interrupted: finished work is kept; run the cell again."
        ]
        reply = client.execute("1 / 0", reply=True, timeout=60)
        assert len(reply["content"]["traceback"]) > 2
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_command_line_names_what_is_wrong_with_another_notebook(capsys, tmp_path):
    (tmp_path / "own.yml").write_text("notebooks: {F_more_agents: {num_agents: 1}}")
    profile = str(tmp_path / "own.yml")
    assert main(["figures", "--profile", profile, "00_quickstart", "F_more_agents"]) == 2
    assert "num_agents: Input should be greater" in capsys.readouterr().err
