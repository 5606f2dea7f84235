"""Names in a stranger's files lead nowhere else, and words in them stay words in cards and pages."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import mistune
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup

from maft_lib.config import ConfigError
from maft_lib.exports import ExportError, export
from maft_lib.lab import html
from maft_lib.plots import save_figure
from maft_lib.profiles import load_config
from maft_lib.run import run_study
from maft_lib.society import Agent
from maft_lib.tables import save_table
from maft_lib.training import trainer
from maft_lib.training.data import AgentData, Example
from tests.scripted import ScriptedBackend
from tests.test_security import mark, trap  # noqa: F401  fixtures

LOG = {
    "settings": {"learning_rate": 1e-4, "num_train_epochs": 1, "seed": 0},
    "num_examples": 2,
    "num_tokens": 20,
    "losses": [1.0, 0.5],
}


@pytest.fixture
def result(config, model, tmp_path):
    """A study of scripted agents, one of which is called finetuned: a copy of the shipped model."""
    small = config.replace(num_train=2, num_eval=2, num_agents=2)
    backend = ScriptedBackend(lambda request: "\\boxed{6}")
    debated = run_study("debate", "arithmetic", small, backend, report=str)
    made = Path(shutil.copytree(model, tmp_path / "made"))
    (made / "training.json").write_text(json.dumps(LOG))
    return with_agent(debated, "generation-1", str(made))


def with_agent(result, name, model=None):
    """The result with another first generation agent, which has learned something."""
    (society,) = result.societies[:1]
    first = Agent(name, "generator", model or society.generators[0].model)
    changed = replace(society, generators=(first, *society.generators[1:]))
    said = ({"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"})
    data = [[AgentData([Example("0" * 16, said)], [], [], [])] * 2]
    return replace(result, societies=[changed], data=data, training=result.evaluations)


@pytest.fixture
def exported(result, tmp_path):
    return export(result, tmp_path / "exported")


# Exports


@pytest.mark.parametrize("name", ["../../../x", "../../.."])
def test_an_agent_whose_name_leads_elsewhere_is_not_exported(result, tmp_path, name):
    model = result.societies[0].generators[0].model
    with pytest.raises(ExportError, match="is no name of a folder"):
        export(with_agent(result, name, model), tmp_path / "new")
    assert not (tmp_path / "new").exists() and not (tmp_path / "x").exists()


HOSTILE = 'x`` "); import os #\n---\n# Title\n<script>alert(1)</script> | a | [l](javascript:f)'
HOSTILE += " ![i](x) *y*\r\n"


def test_a_strangers_words_stay_words_in_the_card(result, tmp_path):
    """All that a loaded study may bring along: note, sources, model."""
    line = " ".join(HOSTILE.split())  # a parameter is one line
    config = result.config.replace(model_name_or_path=line, scorer=line)
    frame = result.frame.assign(train_source=HOSTILE)
    folder = export(replace(result, note=HOSTILE, frame=frame, config=config), tmp_path / "new")
    text = (folder / "README.md").read_text(encoding="utf-8")
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["tags"][0] == "multiagent-finetuning"
    page = BeautifulSoup(mistune.create_markdown(escape=False, plugins=["table"])(body), "html.parser")
    assert not page.find_all(["script", "img"]) and "alert(1)" in page.text
    assert len(page.find_all("h1")) == 1 and not page.find_all("a")


# Societies, profiles, agents


def test_a_profile_is_a_name(tmp_path, monkeypatch):
    """Of a file that lies anywhere only the stem becomes a folder's name."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x.yml").write_text(f"figures_dir: {tmp_path / 'figures'}\n")
    monkeypatch.chdir(tmp_path / "a" / "b")
    config = load_config("../../x.yml")
    assert config.profile == "x" and config.figures == tmp_path / "figures" / "x"
    for profile in ("../x", "x/../..", "..", ".", "/etc", "x\n", ""):
        with pytest.raises(ConfigError, match="profile"):
            config.replace(profile=profile)
        with pytest.raises(ConfigError, match="profile|cannot be read"):
            load_config(profile or "?")
    (tmp_path / "...yml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match="profile"):
        load_config(str(tmp_path / "...yml"))


def test_figures_and_tables_do_not_follow_links(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("precious")
    (tmp_path / "figures").mkdir()
    written = [tmp_path / "figures" / f"one.{kind}" for kind in ("md", "tex", "csv", "pdf", "png")]
    for path in written:
        path.symlink_to(kept)
    save_table(pd.DataFrame({"a": [1]}), tmp_path / "figures" / "one")
    save_figure(plt.figure(), tmp_path / "figures" / "one")
    assert kept.read_text() == "precious"
    assert sorted((tmp_path / "figures").iterdir()) == sorted(written)
    assert not any(path.is_symlink() for path in written)


@pytest.mark.parametrize("name", ["../../x", "/../x", "a/b"])
def test_a_report_of_training_stays_in_its_folder(tmp_path, monkeypatch, name):
    for variable in ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR"):
        monkeypatch.setenv(variable, "")
    report = {"report_to": "none", "run_name": name, "folder": str(tmp_path)}
    own = {"nproc_per_node": None, "lora_rank": None, "report": report}
    trainer._arguments(own, {"seed": 0}, "cpu", tmp_path / "new")
    place = Path(os.environ["TENSORBOARD_LOGGING_DIR"])
    assert place.parent == tmp_path and place.name.startswith(f"{Path(name).name}-")


# Pages


def test_names_stay_names_on_pages(config, result):
    nasty = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    spoiled = config.replace(model_name_or_path=nasty, backend="openai")
    frame = result.frame.assign(iteration=nasty)
    costs = result.costs.assign(iteration=nasty, phase=nasty)
    shown = [
        html(replace(result, method=nasty, task=nasty, note=nasty, frame=frame, costs=costs)),
        html(spoiled),
        pd.DataFrame({nasty: [nasty]}, index=[nasty])._repr_html_(),  # how notebooks show tables
    ]
    for written in shown:
        page = BeautifulSoup(written, "html.parser")
        assert not page.find_all(["script", "img"]) and "alert(1)" in page.text
