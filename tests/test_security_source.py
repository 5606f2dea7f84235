"""Our own source runs no foreign text, and what watches over that and over our packages works."""

import ast
import json
import re
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import maft_lib

FORBIDDEN = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "pd.read_pickle", "torch.save"}


def risks(tree):
    """What in a module's source could run foreign text."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in node.names]
            )
            yield from (name for name in names if name.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            called, told = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            safe = told.get("weights_only") == "True"
            if called == "yaml.load" and ast.unparse(node.args[-1]) == "_StrictLoader":
                continue  # the SafeLoader of `config`
            if called in FORBIDDEN | CALLS or told.get("shell", "False") != "False":
                yield called
            if called == "torch.load" and not safe or told.get("allow_pickle", "False") != "False":
                yield called
            if called.endswith("from_pretrained") and told.get("trust_remote_code") == "True":
                yield called


def test_the_search_for_risks_finds_them():
    source = (
        "import pickle\nfrom dill import load\neval(x)\nos.system(x)\nsubprocess.run(x, shell=True)\n"
        "yaml.load(x)\ntorch.load(x)\ntorch.load(x, weights_only=False)\n"
        "np.load(x, allow_pickle=True)\n"
        "A.from_pretrained(x, trust_remote_code=True)\n"
    )
    assert len(list(risks(ast.parse(source)))) == 10
    assert not list(
        risks(ast.parse("torch.load(x, weights_only=True)\nmodel.eval()\nyaml.safe_load(x)"))
    )


def test_no_foreign_text_is_run():
    sources = sorted(Path(maft_lib.__file__).parent.rglob("*.py"))
    found = {path.name: list(risks(ast.parse(path.read_text()))) for path in sources}
    assert {name: what for name, what in found.items() if what} == {}
    assert len(found) > 60


LOADER = re.compile(r"((Auto\w+|kind|_tokenizer_class\(folder\))\.from_pretrained|SentenceTransformer)")


def test_every_loader_says_whether_code_is_trusted():
    """By default transformers asks at the keyboard, and a hurried yes is soon said."""
    for_all = (
        ast.walk(ast.parse(path.read_text())) for path in Path(maft_lib.__file__).parent.rglob("*.py")
    )
    calls = [node for nodes in for_all for node in nodes if isinstance(node, ast.Call)]
    loaders = [ast.unparse(call) for call in calls if LOADER.fullmatch(ast.unparse(call.func))]
    assert len(loaders) == 6
    assert [call for call in loaders if not re.search(r"trust_remote_code=|\*\*how", call)] == []


AUDIT = Path(__file__).parents[1] / ".ci" / "audit.py"
WEAK = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}


@pytest.mark.parametrize(
    "packages, code, line",
    [
        ([WEAK], 1, "a 1: CVE-1, mended in 2."),
        ([{**WEAK, "vulns": []}], 0, "1 of 1 packages audited, 0 findings."),
        ([{"name": "a", "skip_reason": "unknown"}], 0, "nothing was audited"),
        ([{"name": "b", "skip_reason": "unknown"}, WEAK], 1, "1 of 2 packages audited, 1 findings."),
    ],
)
def test_the_audit_fails_for_findings_alone(packages, code, line, monkeypatch, capsys):
    audit = runpy.run_path(str(AUDIT))
    said = SimpleNamespace(stdout=json.dumps({"dependencies": packages}), stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *command, **how: said)
    assert audit["main"]() == code and line in capsys.readouterr().out
