"""Whatever is wrong with what comes in is said in one sentence, as an error of the project's own.

The tables are in `tests/bad_inputs`. Nearly all rows are handed in here and now; at the end one of the
set-up cell and one of a later cell go through papermill, as a user would meet them.
"""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import maft_lib as maft
from maft_lib import command
from maft_lib.backends import BackendError, Request, Sampling, generate, models
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.config import Config, ConfigError
from maft_lib.profiles import load_config
from maft_lib.prompts import PromptError, Prompts
from maft_lib.setup_cell import notebook_config
from maft_lib.tasks import load_problems
from maft_lib.tasks.problem import DataError, DataWarning
from tests.bad_inputs import (
    answers,
    calls,
    configs,
    data_files,
    functions,
    model_folders,
    one_sentence,
    prompt_files,
)
from tests.bad_inputs.data_files import EXAMPLE, GOOD, numbered, write
from tests.openai_server import BASE, Handler, Server
from tests.scripted import ScriptedBackend

ROOT = Path(__file__).parent.parent
TABLES = {
    "parameters": configs.VALUES,
    "profiles": configs.PROFILES,
    "params files": configs.FILES,
    "notebook parameters": configs.INJECTED,
    "own parameters": configs.OWN,
    "records": data_files.RECORDS,
    "data files": data_files.FILES,
    "requests for problems": data_files.REQUESTS,
    "prompts files": prompt_files.ROWS,
    "model folders": model_folders.ROWS,
    "adapters": model_folders.ADAPTERS,
    "model names": model_folders.NAMES,
    "answers of a server": answers.ROWS,
    "streams of a server": answers.STREAMS,
    "addresses": answers.ADDRESSES,
    "calls": calls.ROWS,
    "functions": functions.ROWS,
    "command lines": calls.COMMANDS,
}


def rows(table):
    """Each row of a table as a test."""
    return pytest.mark.parametrize("row", table.values(), ids=table)


def test_there_are_as_many_different_rows_as_promised():
    different = {(kind, repr(row)) for kind, table in TABLES.items() for row in table.values()}
    assert len(different) == sum(map(len, TABLES.values())) >= 100


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    """Rows say themselves where files are."""
    monkeypatch.delenv("MAFT_DATA_DIR", raising=False)


def put(path, content):
    """Makes a file of bytes, a folder for None, or a link to a path."""
    if content is None:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.symlink_to(content)


# --- configs ------------------------------------------------------------------------------------


@rows(configs.VALUES)
def test_parameters(row):
    values, words = row
    with one_sentence(ConfigError, words):
        load_config("smoke", **values)


def test_several_wrong_parameters_are_all_named():
    values = {"num_agent": 3, "num_rounds": 0, "task": 5, "w": 2.0}
    words = ["did you mean 'num_agents'", "num_rounds: Input", "task: Input", "w: Input"]
    with one_sentence(ConfigError, words):
        load_config("smoke", **values)


@rows(configs.PROFILES)
def test_profiles(row):
    profile, words = row
    with one_sentence(ConfigError, words):
        load_config(profile)


@rows(configs.FILES)
def test_params_files(row, tmp_path):
    content, words = row
    put(tmp_path / "own.yml", content)
    with one_sentence(ConfigError, words):
        load_config(tmp_path / "own.yml")


@rows(configs.INJECTED)
def test_notebook_parameters(row):
    injected, words = row
    with one_sentence(ConfigError, words):
        notebook_config({"profile": "smoke", **injected}, "00_quickstart")


@rows(configs.OWN)
def test_own_parameters_of_a_notebook(row):
    own, injected, words = row
    with one_sentence(ConfigError, words):
        notebook_config({"profile": "smoke", **injected}, "00_quickstart", own)


# --- data files ---------------------------------------------------------------------------------


@rows(data_files.RECORDS)
def test_a_bad_record_is_refused_or_skipped_by_file_line_and_reason(row, tmp_path):
    task, record, reason = row
    file = EXAMPLE[task][0]
    good = numbered(task, 30)
    folder = write(tmp_path, file, [*good[:3], record, *good[3:]])
    with one_sentence(DataError, ["'skip'"]):
        load_problems(task, "eval", 5, data_dir=folder)
    with pytest.raises(DataError, match=f"has bad records .1.: {file}:4 .*{reason}.*'skip'"):
        load_problems(task, "eval", 5, data_dir=folder)
    with pytest.warns(DataWarning, match=f"{file}.*left out .1.: {file}:4 .*{reason}"):
        assert len(load_problems(task, "eval", 5, data_dir=folder, on_bad_records="skip")) == 5


@rows(data_files.FILES)
def test_data_files(row, tmp_path):
    task, files, words = row
    for name, content in files.items():
        put(tmp_path / name, content)
    with one_sentence(DataError, words):
        load_problems(task, "eval" if task != "math" else "train", 12, data_dir=str(tmp_path))


@rows(data_files.REQUESTS)
def test_requests_for_problems(row):
    arguments, words = row
    if str(arguments["task"]).startswith("reasoning_gym:"):
        pytest.importorskip("reasoning_gym")
    with one_sentence(DataError, words):
        load_problems(**arguments)


# --- prompts files ------------------------------------------------------------------------------


@rows(prompt_files.ROWS)
def test_prompts_files(row, tmp_path):
    content, words = row
    path = tmp_path / "mine.yml"
    if isinstance(content, Path):
        path = tmp_path / content
    else:
        put(path, content)
    with one_sentence(PromptError, words):
        Prompts(path)


# --- model folders ------------------------------------------------------------------------------


def ask(model):
    """One short response of a model, generated in this process."""
    backend = TransformersBackend(Config(device="cpu", num_workers=1))
    backend.num_workers = 0
    asked = ({"role": "user", "content": "What is 1+1?"},)
    return generate(backend, [Request(str(model), asked, Sampling(1.0, 1.0, 4), 0)])


def spoil(folder, changes):
    """Makes the changes of a row, see `model_folders`, in a folder that is a copy."""
    for name, change in changes.items():
        path = folder / name
        before = path.read_bytes() if path.exists() else b"{}"
        if isinstance(change, str):
            path.rename(folder / change)
            continue
        path.unlink(missing_ok=True)
        if change is model_folders.FOLDER:
            path.mkdir()
        elif isinstance(change, dict):
            path.write_text(model_folders.merged(before, change))
        elif change is not None:
            path.write_bytes(change if isinstance(change, bytes) else change(before))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A fresh adapter of the shipped model, which it finds beside itself."""
    base = Path(load_config("smoke").base_model)
    place = tmp_path_factory.mktemp("adapter")
    shutil.copytree(base, place / "model")
    (place / "adapter").mkdir()
    fresh = models.with_adapter(place / "model", 4, 8)
    models.save_adapter(fresh, place / "model", place / "adapter")
    for path in base.glob("*token*"):
        shutil.copy(path, place / "adapter")
    shutil.copy(base / "chat_template.jinja", place / "adapter")
    return place


def test_what_is_spoilt_was_good(model, adapter):
    assert ask(model) == ask(adapter / "adapter")  # fresh adapters change nothing


@rows(model_folders.ROWS)
def test_model_folders(row, tmp_path, model):
    changes, words = row
    spoil(Path(shutil.copytree(model, tmp_path / "model")), changes)
    with one_sentence(BackendError, words):
        ask(tmp_path / "model")


@rows(model_folders.ADAPTERS)
def test_adapters(row, tmp_path, adapter):
    changes, words = row
    shutil.copytree(adapter, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path / "adapter", changes)
    with one_sentence(BackendError, words):
        ask(tmp_path / "adapter")


@rows(model_folders.NAMES)
def test_model_names(row, monkeypatch, tmp_path):
    name, words = row
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with one_sentence(BackendError, words):
        ask(name)


# --- answers of a server ------------------------------------------------------------------------

KEY = "key-of-the-test"


class Saying(Handler):
    """Answers whatever `state.said` holds: (status, headers, body)."""

    def fault(self, kind):
        status, headers, body = self.state.said
        self.close_connection = True
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        return True


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server whose next answers a test chooses."""
    pytest.importorskip("openai")
    model = load_config("smoke").base_model
    with Server(model, tmp_path_factory.mktemp("server"), KEY) as server:
        server.http.RequestHandlerClass = type("Bound", (Saying,), {"state": server})
        yield server


@pytest.fixture
def reached(server, monkeypatch):
    """The server, named by the environment."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return server


def ask_server(on_text=None):
    from maft_lib.backends.openai import OpenAIBackend

    backend = OpenAIBackend(Config(max_retries=0, request_timeout=5.0))
    asked = ({"role": "user", "content": "What is 1+1?"},)
    return generate(backend, [Request(BASE, asked, Sampling(1.0, 1.0, 4), 0)], on_text)


def say(server, status, headers, body):
    server.said = status, {"Content-Type": "application/json"} | headers, body
    server.faults["/chat/completions"] = ["say"]


@rows(answers.ROWS)
def test_answers_of_a_server(row, reached):
    status, headers, body, words = row
    say(reached, status, headers, body if isinstance(body, bytes) else answers.as_json(body))
    with one_sentence(BackendError, [f"model {BASE}: ", *words]):
        ask_server()


@rows(answers.STREAMS)
def test_streams_of_a_server(row, reached):
    body, words = row
    say(reached, 200, {"Content-Type": "text/event-stream"}, body)
    with one_sentence(BackendError, [f"model {BASE}: ", *words]):
        ask_server(lambda index, text: None)


@rows(answers.ADDRESSES)
def test_addresses(row, monkeypatch):
    pytest.importorskip("openai")
    address, key, words = row
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with one_sentence(BackendError, words):
        ask_server()


# --- calls --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study."""
    place = tmp_path_factory.mktemp("study")
    config = load_config("smoke", runs_dir=str(place / "runs"))
    scripted = ScriptedBackend(lambda request: "\\boxed{4}")
    return maft.run_study("base", "arithmetic", config, scripted, lambda line: None)


@pytest.fixture
def case(config, finished, tmp_path):
    """What calls are made with."""
    (tmp_path / "tmp").mkdir()
    return SimpleNamespace(config=config, result=finished, tmp=tmp_path / "tmp")


@rows(calls.ROWS)
def test_calls(row, case):
    error_class, call, words = row
    with one_sentence(error_class, words):
        call(case)


@rows(functions.ROWS)
def test_functions(row):
    call, words = row
    with one_sentence(ValueError, words):
        call()


@rows(calls.COMMANDS)
def test_command_lines(row, capsys, monkeypatch, tmp_path):
    arguments, words = row
    monkeypatch.setenv("MAFT_RUNS_DIR", str(tmp_path))
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert "error: " in said.lower() and all(word in said for word in words), said


# --- through papermill --------------------------------------------------------------------------


def by_papermill(folder, **parameters):
    """Runs notebook 02_1 on the smoke profile: (exit code, last line of the output)."""
    given = {"profile": "smoke", "runs_dir": folder / "runs", "figures_dir": folder / "figures"}
    pairs = [part for pair in (given | parameters).items() for part in ("-p", *map(str, pair))]
    notebook = ROOT / "notebooks" / "02_1_multiagent_debate.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook), str(folder / "out.ipynb"), *pairs]
    run = subprocess.run(
        [*command, "--no-progress-bar", "-k", "python3"],
        cwd=ROOT,
        timeout=240,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return run.returncode, re.sub(r"\x1b\[[\d;]*m", "", run.stdout).strip().splitlines()[-1]


def through_data_file(folder, model, server):
    """A data set that was not unpacked."""
    put(folder / "gsm8k_test.jsonl", b"\x1f\x8b" + GOOD)
    return {"task": "gsm", "data_dir": folder}, "DataError: ", "gsm8k_test.jsonl:1 "


def through_server(folder, model, server):
    """A server that answers with a web page."""
    say(server, *answers.ROWS["HTML"][:3])
    server.faults["/chat/completions"] *= 1000
    hosted = {"backend": "openai", "model_name_or_path": BASE, "max_retries": 0}
    return hosted, "BackendError: model miniature: ", "OPENAI_BASE_URL"


@pytest.mark.notebooks
def test_through_papermill(tmp_path, model, reached):
    """Two at a time, as each starts a kernel."""

    def run(through):
        folder = tmp_path / through.__name__
        folder.mkdir()
        parameters, begin, words = through(folder, model, reached)
        return by_papermill(folder, **parameters), begin, words

    with ThreadPoolExecutor(2) as pool:
        for (code, said), begin, words in pool.map(run, [through_data_file, through_server]):
            assert code != 0 and said.startswith(begin) and words in said, said
