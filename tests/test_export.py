"""Exports of real studies of the miniature model: what is in them, and what comes back."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import mistune
import pandas as pd
import pytest
import torch
from datasets import load_dataset
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from maft_lib import run_study
from maft_lib.backends import hub
from maft_lib.config import project_root
from maft_lib.debate import Debate
from maft_lib.exports import PLACES, ExportError, export
from maft_lib.profiles import load_config
from maft_lib.training.data import AgentData, Example

METHODS = ("debate", "star", "majority_ft", "multiagent_ft", "multiagent_ft_lora")
pytestmark = pytest.mark.pipeline


class Runs(dict):
    """The finished study of each method, run when it is first asked for, all with one store."""

    def __init__(self, folder):
        small = {"num_train": 8, "num_eval": 4, "max_tokens": 96}
        self.config = load_config("smoke", runs_dir=str(folder / "runs"), **small)

    def __missing__(self, method):
        num = 2 if method == "multiagent_ft_lora" else 1
        config = self.config.replace(num_iterations=num)
        self[method] = run_study(method, "arithmetic", config, report=str)
        return self[method]


class Exports(dict):
    """The export of each method's study."""

    def __init__(self, runs, folder):
        self.runs, self.folder = runs, folder

    def __missing__(self, method):
        self[method] = export(self.runs[method], self.folder / method)
        return self[method]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def exports(runs, tmp_path_factory):
    return Exports(runs, tmp_path_factory.mktemp("exports"))


def agents(society):
    return (*society.generators, *society.critics, society.summarizer)


def files(folder):
    return {p.relative_to(folder).as_posix(): p for p in Path(folder).rglob("*") if p.is_file()}


def check_places(folder, places):
    """No file says where on this machine anything was."""
    hidden = [str(place).encode() for place in places]
    for name, path in files(folder).items():
        content = path.read_bytes()
        assert not any(place in content for place in hidden), name


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_an_export_has_all_of_a_result(method, runs, exports):
    result, folder = runs[method], exports[method]
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), result.frame)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "costs.parquet"), result.costs)
    for number, debates in enumerate(result.evaluations):
        rows = lines(folder / f"debates/iteration-{number}.jsonl")
        assert list(map(Debate.from_dict, rows)) == debates
    about = json.loads((folder / "study.json").read_text())
    assert (about["method"], about["task"]) == (method, "arithmetic")
    own = {*PLACES, "model_name_or_path"}
    assert load_config(**about["parameters"]).model_dump(exclude=own) == result.config.model_dump(
        exclude=own
    )
    for mine, its in zip(result.societies, about["societies"].values()):
        written = [*its["generators"], *its["critics"], its["summarizer"]]
        for agent, exported in zip(mine.agents, written):
            assert (agent.name, agent.role) == (exported["name"], exported["role"])
            assert hub.identity(str(folder / exported["model"])) == hub.identity(agent.model)
    study = Path(runs.config.runs_dir).parent
    check_places(folder, [study, exports.folder, project_root(), Path.home() / "."])


def test_datasets_read_the_data(runs, exports, tmp_path):
    folder, data = exports["multiagent_ft"], runs["multiagent_ft"].data[0]
    for kind in AgentData._fields:
        examples = [example for agent in data for example in getattr(agent, kind)]
        if examples:  # no file without a row is named
            rows = load_dataset(
                str(folder), f"iteration-1-{kind}", split="train", cache_dir=str(tmp_path)
            )
            assert [tuple(row["messages"]) for row in rows] == [e.messages for e in examples]
            assert set(rows["agent"]) <= {1, 2, 3}
    rows = load_dataset(
        str(exports["star"]), "iteration-1-shared", split="train", cache_dir=str(tmp_path)
    )
    assert [row["problem_id"] for row in rows] == [e.problem_id for e in runs["star"].data[0]]


def test_hugging_face_loads_agents_without_this_library(exports, monkeypatch):
    """A whole model, and from the export's root an adapter by the base that it names."""
    from peft import AutoPeftModelForCausalLM

    from maft_lib.backends.models import load_model

    folder = exports["multiagent_ft"] / "agents/iteration-1/critic-3"
    ids = AutoTokenizer.from_pretrained(folder)("2+2", return_tensors="pt").input_ids
    assert AutoModelForCausalLM.from_pretrained(folder)(ids).logits.isfinite().all()
    monkeypatch.chdir(exports["multiagent_ft_lora"])
    adapter = "agents/iteration-2/generation-2"
    model = AutoPeftModelForCausalLM.from_pretrained(adapter)
    assert torch.allclose(
        model(ids).logits, load_model(adapter, "float32", "cpu")(ids).logits, atol=1e-4
    )
    assert not (Path(adapter) / "model.safetensors").exists()


def test_agents_that_share_a_model_are_written_once_and_may_be_chosen(runs, exports, tmp_path):
    made = {path.parent.name for path in exports["majority_ft"].glob("agents/*/*/training.json")}
    assert made == {"generation-1"}
    export(runs["multiagent_ft_lora"], tmp_path / "last", iterations=[2])
    trained = [path.parent for path in (tmp_path / "last").glob("agents/*/*/training.json")]
    assert {path.parent.name for path in trained} == {"iteration-2"} and len(trained) == 6
    export(runs["multiagent_ft"], tmp_path / "without", iterations=[])
    assert not (tmp_path / "without/agents").exists()


def test_the_card_says_what_was_done(runs, exports):
    card = ModelCard.load(exports["multiagent_ft"] / "README.md")
    assert card.data.library_name == "transformers" and card.data.base_model is None
    accuracy = 100 * runs["multiagent_ft"].frame.query("iteration == 1").correct.mean()
    for text in (
        "finetuned from `maft_lib/miniature/model` by `multiagent_ft`",
        "`learning_rate: 0.0001`",
        "**Train problems:** 8; source: `generated`",
        "@inproceedings{subramaniam2025multiagent",
    ):
        assert text in " ".join(card.text.split()), text
    row = next(line for line in card.text.splitlines() if re.match(r"\|\s*1\s*\|", line))
    assert f"{accuracy:.1f}" in row


HOSTILE = '```\n# Heading\n<script>alert(1)</script> | x | {{ 7 * 7 }}\r\n---\n"quoted", \u2028\n```'


def test_what_models_and_strangers_wrote_stays_text(runs, tmp_path):
    result = runs["multiagent_ft"]
    said = ({"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE})
    example = Example("0123456789012345", said)
    data = [[AgentData([example], [example], [], [example])] * 3]
    answers = [HOSTILE, "NA", "007", None, "1\r2", "nan", "1e5", " x "]
    frame = result.frame.assign(answer=answers, train_source=HOSTILE)
    spoiled = replace(result, data=data, frame=frame, note=HOSTILE)
    folder = export(spoiled, tmp_path / "hostile")
    assert json.loads((folder / "study.json").read_text())["note"] == HOSTILE
    written = lines(folder / "data/iteration-1/generation.jsonl")
    assert [tuple(row["messages"]) for row in written] == [said] * 3
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), frame)
    page = mistune.html((tmp_path / "hostile/README.md").read_text())
    assert "&lt;script&gt;" in page and "<script" not in page


def test_a_base_model_from_the_hub_is_named_not_copied(runs, tmp_path, monkeypatch):
    """From a hub's cache on this disk, as a model that was fetched once."""
    result = runs["multiagent_ft_lora"]
    here, config = result.config.base_model, result.config.replace(model_name_or_path="someone/mini")
    cache = tmp_path / "cache" / "models--someone--mini"
    shutil.copytree(here, cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    societies = [
        replace(
            society,
            generators=tuple(
                replace(a, model=a.model.replace(here, "someone/mini")) for a in society.generators
            ),
            critics=tuple(
                replace(a, model=a.model.replace(here, "someone/mini")) for a in society.critics
            ),
            summarizer=replace(society.summarizer, model="someone/mini"),
        )
        for society in result.societies
    ]
    folder = export(replace(result, config=config, societies=societies), tmp_path / "new")
    adapter = folder / "agents/iteration-1/critic-1"
    assert not (folder / "agents/base").exists()
    assert ModelCard.load(folder / "README.md").data.base_model == "someone/mini"
    assert json.loads((adapter / "base.json").read_text())["name"] == "someone/mini"
    about = json.loads((folder / "study.json").read_text())
    assert about["societies"]["1"]["summarizer"]["model"] == "someone/mini"
    assert hub.identity(str(adapter)) == hub.identity(result.societies[1].critics[0].model)


def test_models_that_a_server_keeps_are_named(runs, tmp_path):
    """A finetuning job leaves a folder with the model's name in it, and no weights."""
    result = runs["majority_ft"]
    made = tmp_path / "checkpoint"
    made.mkdir()
    (made / "training.json").write_text("{}")
    (made / "openai.json").write_text('{"model": "ft:small:one"}')
    names = {result.config.base_model: "small", result.societies[1].generators[0].model: str(made)}
    societies = [
        replace(
            society,
            generators=tuple(replace(a, model=names[a.model]) for a in society.generators),
            critics=tuple(replace(a, model=names[a.model]) for a in society.critics),
            summarizer=replace(society.summarizer, model="small"),
        )
        for society in result.societies
    ]
    config = result.config.replace(backend="openai", model_name_or_path="small")
    export(replace(result, societies=societies, config=config), tmp_path / "new")
    folder = tmp_path / "new/agents/iteration-1/generation-1"
    assert {path.name for path in folder.iterdir()} == {"openai.json", "training.json"}
    written = json.loads((tmp_path / "new/study.json").read_text())["societies"]
    assert written["1"]["critics"][2]["model"] == "agents/iteration-1/generation-1"
    assert written["0"]["summarizer"]["model"] == "small"


def test_other_prompts_come_along(runs, tmp_path):
    prompts = tmp_path / "mine.yml"
    text = (project_root() / "maft_lib/prompts/default.yml").read_text()
    prompts.write_text(f"# mine\n{text}")
    config = runs.config.replace(prompts=str(prompts))
    result = replace(runs["debate"], config=config)
    export(result, tmp_path / "new")
    assert (tmp_path / "new/prompts.yml").read_bytes() == prompts.read_bytes()


# What is refused


def test_nothing_is_overwritten(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    export(runs["debate"], tmp_path / "empty")
    with pytest.raises(ExportError, match="holds something already"):
        export(runs["debate"], tmp_path / "empty")
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        with pytest.raises(ExportError, match="file"):
            export(runs["debate"], tmp_path / place)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device", "x")])
def test_an_interrupted_export_leaves_nothing(error, runs, tmp_path, monkeypatch):
    copy, copied = shutil.copytree, []

    def fail(*arguments, **options):
        copied.append(copy(*arguments, **options))
        if len(copied) == 3:
            raise error

    monkeypatch.setattr(shutil, "copytree", fail)
    with pytest.raises((KeyboardInterrupt, ExportError)) as raised:
        export(runs["multiagent_ft"], tmp_path / "new")
    assert len(copied) == 3 and not list(tmp_path.iterdir())
    assert isinstance(error, KeyboardInterrupt) or "No space left on device" in str(raised.value)


def test_a_result_from_which_something_is_missing(runs, tmp_path):
    result = runs["majority_ft"]
    society = result.societies[1]
    lost = tuple(replace(a, model=str(tmp_path / "gone")) for a in society.generators)
    gone = replace(result, societies=[result.societies[0], replace(society, generators=lost)])
    with pytest.raises(ExportError, match="generation-1 is not at .*gone"):
        export(gone, tmp_path / "new")
    with pytest.raises(ExportError, match="iterations: the run has"):
        export(result, tmp_path / "new", iterations=[1, 7])
    assert not list(tmp_path.iterdir())
