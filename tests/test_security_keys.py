"""Keys are never stored or shown: all files, outputs and tracebacks of whole runs are searched."""

import base64
import logging
import re
import traceback

import pytest
import yaml
from papermill.exceptions import PapermillExecutionError

from maft_lib.backends import BackendError, Request, Sampling, generate
from maft_lib.backends.openai import OpenAIBackend
from maft_lib.backends.opening import open_backend
from maft_lib.config import Config
from maft_lib.exports import export
from maft_lib.lab import html
from maft_lib.notebooks import run_notebooks
from maft_lib.profiles import load_config
from maft_lib.report import write_report
from maft_lib.run import run_study
from tests.openai_server import BASE, Server

pytest.importorskip("openai")
pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore:.*has no example:UserWarning"),
]

PASSWORD = "planted-password-71c3"
PLANTED = {
    "OPENAI_API_KEY": "sk-planted-9f8e7d6c5b4a",
    "HF_TOKEN": "hf_plantedPLANTED0123456789abcdefgh",
    "WANDB_API_KEY": "0123456789planted0123456789abcdef01234567",
}
CHAT, JOBS = "/chat/completions", "/fine_tuning/jobs"
NOTEBOOK = "00_quickstart"
SMALL = {
    "backend": "openai",
    "model_name_or_path": BASE,
    "task": "arithmetic",
    "max_operand": 9,
    "num_train": 6,
    "num_eval": 4,
    "num_agents": 2,
    "num_iterations": 1,
    "max_tokens": 96,
    "max_retries": 3,
    "request_timeout": 20.0,
}


@pytest.fixture
def server(model, tmp_path_factory, monkeypatch):
    """A server with files of its own, of which the environment knows address and key."""
    with Server(model, tmp_path_factory.mktemp("server"), PLANTED["OPENAI_API_KEY"]) as server:
        for name, value in PLANTED.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


@pytest.fixture
def profile(tmp_path):
    """Params files with folders of their own, by name."""

    def written(name, **changes):
        places = {"runs_dir": str(tmp_path / name / "runs"), "figures_dir": str(tmp_path / "figures")}
        path = tmp_path / f"{name}.yml"
        path.write_text(yaml.safe_dump({**SMALL, **places, **changes}))
        return str(path)

    return written


def secrets(server):
    """The planted ones, the server's address, and what a Basic header makes of them."""
    pair = base64.b64encode(f"someone:{PASSWORD}".encode()).decode().rstrip("=")
    address = re.sub(r"http://|/v1", "", server.url)
    return [secret.encode() for secret in (*PLANTED.values(), PASSWORD, pair, address, "planted-host")]


def check(server, folder, *texts):
    """None of the secrets is in any file below `folder`, in any name there, or in any of `texts`."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    held = [(str(path), path.read_bytes()) for path in files]
    held += [("a name", str(path).encode()) for path in files] + [("a text", t.encode()) for t in texts]
    assert files
    for secret in secrets(server):
        assert not [where for where, what in held if secret in what]


def test_the_search_finds_what_is_there(server, tmp_path):
    for number, secret in enumerate(secrets(server)):
        (tmp_path / f"{number}.bin").write_bytes(b"\x00" + secret + b"\xff")
        with pytest.raises(AssertionError):
            check(server, tmp_path)
        (tmp_path / f"{number}.bin").write_bytes(b"nothing")


FAULTS = {
    "a wrong key": lambda server, env: env.setattr(server, "key", "another"),
    "500": lambda server, env: server.faults.update({CHAT: ["500"] * 99}),
    "403": lambda server, env: server.faults.update({CHAT: ["403"] * 99}),
    "malformed": lambda server, env: server.faults.update({CHAT: ["no_json"] * 99}),
    "a password": lambda server, env: env.setenv(
        "OPENAI_BASE_URL", server.url.replace("//", f"//someone:{PASSWORD}@")
    ),
    "no such host": lambda server, env: env.setenv(
        "OPENAI_BASE_URL", f"http://someone:{PASSWORD}@planted-host.invalid/v1"
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_tracebacks_hold_no_secret(server, fault, monkeypatch, tmp_path, caplog, capfd):
    """Not even one that prints the variables of every frame, as `%xmode Verbose` does."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "note").touch()
    FAULTS[fault](server, monkeypatch)
    asked = Request(BASE, ({"role": "user", "content": "1+1"},), Sampling(max_tokens=8), 0)
    with pytest.raises(BackendError) as caught:
        generate(OpenAIBackend(Config(max_retries=1, request_timeout=5.0)), [asked])
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [line for line in told.format() if "tests/" not in line.splitlines()[0]]
    written = capfd.readouterr()
    check(server, tmp_path, str(caught.value), *frames, caplog.text, written.out, written.err)


def test_a_whole_study_in_a_notebook(server, profile, tmp_path, monkeypatch, caplog, capfd):
    """Its executed copy, store, jobs, checkpoints, pages and export; then one that fails."""
    caplog.set_level(logging.DEBUG)
    server.faults[CHAT] = ["500", "drop"]
    server.faults[f"POST {JOBS}"] = ["500"]
    run_notebooks(whole := profile("whole"), [NOTEBOOK])
    config = load_config(whole)
    assert "took" in write_report(config).read_text()
    seen = len(server.seen)
    result = run_study("multiagent_ft", config.task, config)  # out of the store
    assert len(server.seen) == seen and len(server.jobs) > 1
    export(result, tmp_path / "exported")
    assert list(tmp_path.rglob("*.sqlite-wal"))  # what is not in the database yet is searched, too
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://someone:{PASSWORD}@planted-host.invalid/v1")
    with pytest.raises(PapermillExecutionError, match="no answer after all retries") as caught:
        run_notebooks(profile("broken", max_retries=0), [NOTEBOOK])
    copies = {path.parent for path in tmp_path.rglob(f"{NOTEBOOK}.ipynb")}
    assert len(copies) == 2
    backend = open_backend(config).inner
    shown = [repr(result), repr(backend), *(html(x) for x in (result, config))]
    written = capfd.readouterr()
    check(server, tmp_path, written.out, written.err, str(caught.value), caplog.text, *shown)
