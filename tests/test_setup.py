"""environment.yml, pyproject.toml and constraints.txt fit together; README's commands exist."""

import os
import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from maft_lib.command import main

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
CONSTRAINTS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)
TESTED = {canonicalize_name(name): version for name, version in CONSTRAINTS.items()}


def requirements(lines):
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r.specifier for r in parsed}


def test_conda_environment_is_this_project_with_the_tested_versions():
    assert CONDA[-1]["pip"] == ["-c constraints.txt", "-e ."]
    conda = requirements(re.sub(r"(?<![<>=])=(?!=)", "==", line) for line in CONDA[:-1])
    assert "python" in conda and conda["jupyterlab"].contains(TESTED["jupyterlab"])


def test_every_dependency_has_a_tested_version_that_it_admits():
    extras = PROJECT["optional-dependencies"]
    for name, specifier in requirements([*PROJECT["dependencies"], *extras["dev"]]).items():
        assert specifier.contains(TESTED[name]), name
    assert set(extras) == {"vllm", "openai", "ray", "gpu", "reasoning-gym", "dev"}
    assert TESTED["torch"] == "2.13.0" and TESTED["transformers"].startswith("5.19.")


@pytest.mark.parametrize(
    "name",
    ["load_config", "load_problems", "extract_answer", "is_equivalent", "majority_vote", "run_debates"]
    + ["build_finetuning_data", "finetune", "run_study", "run_studies", "studies"],
)
def test_a_public_name_is_a_function_whatever_is_imported(name):
    """No module of the same name takes its place."""
    import maft_lib.run
    import maft_lib.training.finetuning

    assert callable(getattr(maft_lib, name)) and callable(getattr(maft_lib, name))


def test_the_commands_of_the_readme_exist(capsys):
    """Those of `make` with what they call, and those of `maft`: a typing error ends a first minute."""
    text = (ROOT / "README.md").read_text()
    asked = set(re.findall(r"(?:^|`)(make|maft) ([a-z]+)(?= |`|$)", text, re.MULTILINE))
    assert {("make", word) for word in ("figures", "test", "lab")} < asked
    for name, word in asked:
        if name == "make":
            run = subprocess.run(["make", "-n", word], cwd=ROOT, capture_output=True, text=True)
            assert run.returncode == 0, run.stderr
            called = re.search(r"/maft ([a-z]+)", run.stdout)
            word = called[1] if called else ""
        assert not word or main([word, "--help"]) == 0, capsys.readouterr().err


class Hub(BaseHTTPRequestHandler):
    """What the Hugging Face hub says of a model by the name of its owner."""

    def do_GET(self):
        codes = {"gated": (403, "GatedRepo"), "absent": (404, "RepoNotFound"), "open": (200, "")}
        status, code = codes[self.path.split("/")[3]]
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def test_a_model_that_is_not_here_is_named_with_what_helps(tmp_path):
    program = (
        "import maft_lib as m; from maft_lib.setup_cell import missing_models\n"
        "for owner in ('gated', 'absent', 'open'):\n"
        "    config = m.load_config('smoke', model_name_or_path=owner + '/model')\n"
        "    print(*missing_models(config), sep='|')"
    )

    def asked(url):
        env = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-c", program]
        run = subprocess.run(command, env=env, capture_output=True, text=True)
        return run.stdout.splitlines() or run.stderr

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        gated, absent, free = asked(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "gated/model is gated: accept its licence" in gated and "hf auth login" in gated
    assert "absent/model is not on the hub, or not for you" in absent
    assert "open/model is not in the cache: hf download open/model." in free
    unreached = [
        "the hub cannot be reached: hf download" in line for line in asked("http://127.0.0.1:1")
    ]
    assert unreached == [True] * 3


def test_a_commit_is_dirty_if_its_code_differs(tmp_path):
    def commit():
        program = "from maft_lib.provenance import made_with; print(made_with()['commit'])"
        run = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
        )
        return run.stdout.strip()

    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path], check=True)
    (tmp_path / "notes.md").write_text("mine")
    clean = commit()
    (tmp_path / "maft_lib" / "seeds.py").open("a").write("# mine\n")
    assert clean and "dirty" not in clean and commit() == f"{clean}-dirty"
