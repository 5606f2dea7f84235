"""environment.yml, pyproject.toml and constraints.txt fit together; README's commands exist."""

import re
import subprocess
import tomllib
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
