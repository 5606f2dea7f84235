"""environment.yml, pyproject.toml and constraints.txt name the same packages and fitting versions."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def test_conda_environment_holds_what_pyproject_asks_for():
    pip = CONDA[-1]["pip"]
    assert pip[0] == "-c constraints.txt" and pip[-1] == "-e ."
    conda = requirements(re.sub(r"(?<![<>=])=(?!=)", "==", line) for line in CONDA[:-1])
    wanted = requirements(PROJECT["dependencies"])
    assert "python" in conda and "jupyterlab" in conda
    assert requirements(pip[1:-1]) == {n: s for n, s in wanted.items() if n not in conda}
    assert conda["jupyterlab"].contains(TESTED["jupyterlab"])


def test_every_dependency_has_a_tested_version_that_it_admits():
    extras = PROJECT["optional-dependencies"]
    for name, specifier in requirements([*PROJECT["dependencies"], *extras["dev"]]).items():
        assert specifier.contains(TESTED[name]), name
    assert set(extras) == {"vllm", "openai", "ray", "gpu", "reasoning-gym", "dev"}
    assert TESTED["torch"] == "2.13.0" and TESTED["transformers"].startswith("5.19.")


def test_the_public_names_are_what_design_says():
    code = """
import maft_lib as maft, maft_lib.training.finetuning, maft_lib.run
for name in ("load_config", "load_problems", "extract_answer", "is_equivalent", "majority_vote",
             "run_debates", "build_finetuning_data", "finetune", "run_study"):
    assert callable(getattr(maft, name)) and callable(getattr(maft, name)), name
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
