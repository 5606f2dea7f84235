"""Exports of real studies of the miniature model: what is in them, and what comes back."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import mistune
import pandas as pd
import pytest
import torch
from datasets import load_dataset
from huggingface_hub import DatasetCard, ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from maft_lib import metrics, open_backend, tables
from maft_lib.backends import BackendError, hub
from maft_lib.backends.opening import CachedBackend
from maft_lib.backends.rendering import render_conversation
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.config import project_root
from maft_lib.debate import run_debates
from maft_lib.exports import ExportError, agents, export, layout, load_export
from maft_lib.metrics import diversity
from maft_lib.profiles import load_config
from maft_lib.run import run_study
from maft_lib.store import Store
from maft_lib.training.data import AgentData, Example
from maft_lib.training.finetuning import training_log

METHODS = (
    *("debate", "star", "majority_ft", "single_agent_ft", "multiagent_ft", "multiagent_ft_wo_critic"),
    *("multiagent_ft_lora", "multiagent_ft_dpo", "no_interaction", "distilled_society"),
)
TRAINED = METHODS[1:]
pytestmark = pytest.mark.pipeline


class Runs(dict):
    """The finished study of each method, run when it is first asked for, all with one store."""

    def __init__(self, folder):
        config = load_config("smoke", runs_dir=str(folder / "runs"))
        small = {"num_train": 8, "num_eval": 4, "num_iterations": 1, "max_tokens": 48}
        self.config = config.replace(**small)

    def __missing__(self, method):
        num = 2 if method in ("multiagent_ft", "multiagent_ft_lora") else 1
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


def files(folder):
    return {p.relative_to(folder).as_posix(): p for p in Path(folder).rglob("*") if p.is_file()}


def finetuned(folder):
    """The folders of the exported agents, the base apart."""
    return sorted(path.parent for path in folder.glob("agents/iteration-*/*/training.json"))


def table_1(result):
    accuracies = metrics.accuracy(metrics.last_iteration(result.frame))
    return tables.methods_by_task(accuracies, ["arithmetic"], [result.method], unreadable=True)


# What comes back


@pytest.mark.parametrize("method", METHODS)
def test_loading_back_gives_the_same_tables(method, runs, exports, tmp_path):
    result, loaded = runs[method], load_export(exports[method])
    for part, again in ((result, tmp_path / "a"), (loaded, tmp_path / "b")):
        tables.save_table(table_1(part), again, metrics.accuracy(part.frame))
    for suffix in (".md", ".tex", ".csv"):
        pair = [(tmp_path / name).with_suffix(suffix).read_bytes() for name in "ab"]
        assert pair[0] == pair[1]
    pd.testing.assert_frame_equal(loaded.frame, result.frame)
    pd.testing.assert_frame_equal(loaded.costs, result.costs)
    assert metrics.counts(loaded.costs).to_csv() == metrics.counts(result.costs).to_csv()
    measured = [[diversity.consensus(d) for d in r.evaluations] for r in (result, loaded)]
    assert measured[0] == measured[1] and len(measured[0]) == len(result.societies)


@pytest.mark.parametrize("method", METHODS)
def test_loading_back_gives_the_same_evidence(method, runs, exports):
    result, loaded = runs[method], load_export(exports[method])
    for name in ("method", "task", "note", "train_ids", "eval_ids", "data"):
        assert getattr(loaded, name) == getattr(result, name), name
    for name in ("evaluations", "training"):  # with their seconds, which == leaves out
        mine, its = (
            [[d.to_dict() for d in part] for part in getattr(r, name)] for r in (result, loaded)
        )
        assert mine == its
    kept = [r.config.model_dump(exclude=layout.PLACES - {"profile"}) for r in (result, loaded)]
    assert kept[0] == kept[1]
    named = [
        [[(a.name, a.role, hub.identity(a.model)) for a in agents.members(s)] for s in r.societies]
        for r in (result, loaded)
    ]
    assert named[0] == named[1]  # the same content, wherever it is
    assert method == "debate" or named[0][0] != named[0][-1]


@pytest.mark.parametrize("method", ["multiagent_ft", "multiagent_ft_lora"])
def test_an_exported_society_debates_as_before_without_a_model_call(method, runs, exports):
    result, loaded = runs[method], load_export(exports[method])
    problems = [debate.problem for debate in result.evaluations[-1]]
    backend = open_backend(result.config)
    calls = backend.num_calls
    society = loaded.societies[-1]
    assert all(Path(a.model).is_relative_to(exports[method]) for a in agents.members(society))
    assert run_debates(society, problems, result.config, backend, 2) == result.evaluations[-1]
    assert backend.num_calls == calls


def test_an_exported_society_really_says_the_same(runs, exports, tmp_path):
    """Adapters of adapters, loaded from their new place and asked anew."""
    result, loaded = runs["multiagent_ft_lora"], load_export(exports["multiagent_ft_lora"])
    backend = CachedBackend(TransformersBackend("cpu", num_workers=1), Store(tmp_path))
    problems = [debate.problem for debate in result.evaluations[-1]]
    said = run_debates(loaded.societies[-1], problems, loaded.config, backend, 2)
    assert said == result.evaluations[-1] and backend.num_calls == 4 * 9


def test_a_study_goes_on_from_an_exported_agent(runs, exports, tmp_path):
    """Its folder is then the base model, not an agent of the study."""
    base = str(exports["multiagent_ft"] / "agents/iteration-1/generation-1")
    config = runs.config.replace(model_name_or_path=base)
    result = run_study("majority_ft", "arithmetic", config, report=str)
    loaded = load_export(export(result, tmp_path / "new"))
    found = files(tmp_path / "new")
    assert "agents/base/model.safetensors" in found
    assert not any(name.startswith("agents/iteration-0") for name in found)
    assert set(loaded.frame.model) == {"generation-1"}  # an absolute path stays behind
    assert loaded.config.base_model == str(tmp_path / "new/agents/base")
    assert hub.identity(loaded.config.base_model) == hub.identity(base)
    check_places(tmp_path / "new", [exports.folder, tmp_path])


# What is written


def check_places(folder, places):
    """No file says where on this machine anything was."""
    hidden = [str(place).encode() for place in places]
    for name, path in files(folder).items():
        content = path.read_bytes()
        assert not any(place in content for place in hidden), name


@pytest.mark.parametrize("method", METHODS)
def test_no_path_of_this_machine_is_in_it_and_twice_is_the_same(method, runs, exports, tmp_path):
    study = Path(runs.config.runs_dir).parent
    check_places(exports[method], [study, exports.folder, project_root(), Path.home() / ".", "/tmp/"])
    again = export(runs[method], tmp_path / "again")
    one, other = (
        {name: path.read_bytes() for name, path in files(folder).items()}
        for folder in (exports[method], again)
    )
    assert one == other
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=again, capture_output=True)
    assert sums.returncode == 0, sums.stdout
    assert len((again / "SHA256SUMS").read_text().splitlines()) == len(one) - 1


@pytest.mark.parametrize("method", TRAINED)
def test_every_agent_was_trained_on_what_its_card_names(method, runs, exports):
    """The rows rendered again have as many tokens as the training counted."""
    folder = exports[method]
    for agent in finetuned(folder):
        log, card = training_log(agent), (agent / "README.md").read_text()
        named = card.split("`datasets/")[1].split("`")[0]
        lines = (folder / "datasets" / named / "train.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert len(rows) == log["num_examples"]
        tokenizer = AutoTokenizer.from_pretrained(agent)
        num = sum(tokens(tokenizer, row["prompt"] + row["completion"], log) for row in rows)
        pairs = [row for row in rows if "rejected" in row]
        assert len(pairs) == (len(rows) if log["dpo_beta"] else 0)
        num += sum(tokens(tokenizer, row["prompt"] + row["rejected"], log) for row in pairs)
        assert num * log["settings"]["num_train_epochs"] == log["num_tokens"]
        assert f"{log['num_tokens']:,}" in card and f"| seed | {log['settings']['seed']} |" in card


def tokens(tokenizer, messages, log):
    return len(render_conversation(tokenizer, messages, log["loss_on"]).input_ids)


@pytest.mark.parametrize("method", ["star", "multiagent_ft", "multiagent_ft_dpo"])
def test_datasets_read_them(method, runs, exports, tmp_path):
    folder, data = exports[method], runs[method].data[0]
    cache = {"cache_dir": str(tmp_path / "cache")}
    whole = load_dataset(str(folder), "iteration-1-generation-1", split="train", **cache)
    alone = load_dataset(str(folder / "datasets"), "iteration-1-generation-1", **cache)
    bare = load_dataset(str(folder / "datasets/iteration-1/generation-1"), **cache)
    examples = data[0].generation if isinstance(data[0], AgentData) else data
    for rows in (whole, alone["train"], bare["train"]):
        assert [row["problem_id"] for row in rows] == [e.problem_id for e in examples]
        assert [tuple(row["messages"]) for row in rows] == [e.messages for e in examples]
        assert all(row["prompt"] + row["completion"] == row["messages"] for row in rows)
        assert {row["completion"][0]["role"] for row in rows} == {"assistant"}
    if method == "star":
        return
    critic = load_dataset(str(folder), "iteration-1-critic-2", **cache)
    assert [tuple(row["messages"]) for row in critic["kept"]] == [e.messages for e in data[1].kept]
    assert ("rejected" in critic["train"].features) == (method == "multiagent_ft_dpo")
    if method == "multiagent_ft_dpo":
        for row in critic["train"]:
            assert row["chosen"] == row["completion"] != row["rejected"]
            assert row["rejected"][0]["role"] == "assistant"


def test_hugging_face_loads_an_agent_without_this_library(exports):
    folder = exports["multiagent_ft"] / "agents/iteration-2/critic-3"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "2+2"}], return_tensors="pt", return_dict=False
    )
    assert model(ids).logits.isfinite().all()


def test_peft_loads_an_adapter(runs, exports, monkeypatch):
    """As the card says, from the export's root, and by the base that the adapter itself names."""
    from peft import AutoPeftModelForCausalLM

    from maft_lib.backends.models import load_model

    monkeypatch.chdir(exports["multiagent_ft_lora"])
    folder = "agents/iteration-2/generation-2"
    ids = torch.tensor([[5, 6, 7, 8]])
    base = AutoModelForCausalLM.from_pretrained("agents/base")
    before = base(ids).logits
    ours = load_model(folder, "float32", "cpu")(ids).logits
    for model in (
        PeftModel.from_pretrained(base, folder),
        AutoPeftModelForCausalLM.from_pretrained(folder),
    ):
        assert torch.allclose(model(ids).logits, ours, atol=1e-4)
    assert not torch.allclose(before, ours, atol=1e-4)
    assert not (Path(folder) / "model.safetensors").exists()


def test_agents_that_share_a_checkpoint_are_written_once(runs, exports):
    folder = exports["single_agent_ft"]
    assert [path.name for path in finetuned(folder)] == ["generation-1"]
    card = (folder / "agents/iteration-1/generation-1/README.md").read_text()
    assert "used as generation-1, generation-2, generation-3, critic-1, critic-2, critic-3." in card
    three = [path.name for path in finetuned(exports["multiagent_ft_wo_critic"])]
    assert three == ["generation-1", "generation-2", "generation-3"]
    assert len(finetuned(exports["multiagent_ft"])) == 12
    assert not (exports["debate"] / "agents").exists()
    assert not (exports["debate"] / "datasets").exists()


def test_agents_may_be_left_out_or_chosen(runs, exports, tmp_path):
    result = runs["multiagent_ft"]
    without = load_export(export(result, tmp_path / "without", agents=False))
    assert not (tmp_path / "without/agents").exists()
    assert without.societies[0].summarizer.model == result.config.base_model
    with pytest.raises(BackendError, match="agents/iteration-2/critic-1' does not exist"):
        hub.model_folder(without.societies[2].critics[0].model)
    export(result, tmp_path / "last", iterations=[2])
    assert {path.parent.name for path in finetuned(tmp_path / "last")} == {"iteration-2"}
    assert len(finetuned(tmp_path / "last")) == 6
    for name in ("scores.csv", "datasets/iteration-1/critic-1/train.jsonl"):
        assert (tmp_path / "last" / name).read_bytes() == files(exports["multiagent_ft"])[
            name
        ].read_bytes()


def test_the_cards_state_base_data_hyper_parameters_seeds_and_scores(runs, exports):
    result, folder = runs["multiagent_ft"], exports["multiagent_ft"]
    card = DatasetCard.load(folder / "README.md")
    assert len(card.data.configs) == 12  # three agents, two roles, two iterations
    for run in metrics.accuracy(result.frame).itertuples():
        row = next(line for line in card.text.splitlines() if line.startswith(f"| {run.iteration} "))
        assert f"{run.accuracy:.1f} ± {run.standard_error:.1f}" in row
    for text in (
        "| base model | `maft_lib/miniature/model`",
        "| learning_rate | 0.0001 |",
        "| seed | 0 |",
        f"`arithmetic`, {len(result.train_ids)} problems",
        "@inproceedings{subramaniam2025multiagent",
    ):
        assert text in card.text, text
    agent = ModelCard.load(folder / "agents/iteration-2/critic-1/README.md")
    assert agent.data.library_name == "transformers" and agent.data.base_model is None
    log = training_log(folder / "agents/iteration-2/critic-1")
    last = log["losses"]  # one epoch
    assert f"| final loss | {sum(last) / len(last):.4f} nats per token" in agent.text
    assert "the agent of the iteration before" in agent.text
    right = [d.answers[0][-1] for d in result.evaluations[2]]
    percent = 100 * sum(a == d.problem.answer for a, d in zip(right, result.evaluations[2])) / 4
    assert f"| critic-1 | last answer | {percent:.1f} ± " in agent.text
    adapter = exports["multiagent_ft_lora"] / "agents/iteration-1/critic-1/README.md"
    assert "LoRA adapter" in adapter.read_text() and "| lora_rank | 16 |" in adapter.read_text()


HOSTILE = """```
# Heading
<script>alert(1)</script> | x | {{ 7 * 7 }} {% raw %}"""
HOSTILE += '\r\n---\n"quoted", \u2028\n```\n\n```'


def test_what_models_wrote_stays_text(runs, tmp_path):
    result = runs["multiagent_ft"]
    said = ({"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE})
    example = Example("0123456789012345", said)
    data = [[AgentData([example], [example], [], [example])] * 3, *result.data[1:]]
    answers = [HOSTILE, "NA", "007", None, "1\r2", "a,b", '"', "nan", "1e5", " x "]
    frame = result.frame.assign(answer=(answers * 2)[: len(result.frame)])
    loaded = load_export(export(replace(result, data=data, frame=frame), tmp_path / "hostile"))
    assert loaded.data == data
    pd.testing.assert_frame_equal(loaded.frame, frame)
    for card in ("README.md", "datasets/README.md"):
        page = mistune.html((tmp_path / "hostile" / card).read_text().split("\n---\n", 1)[1])
        assert "<script" not in page and "Heading</h1>" not in page
    assert "{{ 7 * 7 }}" in (tmp_path / "hostile/datasets/README.md").read_text()
    rows = load_dataset(
        str(tmp_path / "hostile"), "iteration-1-critic-1", cache_dir=str(tmp_path / "cache")
    )
    assert rows["train"][0]["completion"][0]["content"] == HOSTILE


def test_an_agent_without_an_example_keeps_its_model_and_has_no_config(runs, tmp_path):
    """Its data is empty, and `load_dataset` is not sent to an empty file."""
    result = runs["multiagent_ft_wo_critic"]
    start, end = result.societies
    kept = replace(end.generators[0], model=start.generators[0].model)
    society = replace(end, generators=(kept, *end.generators[1:]))
    first = result.data[0][0]._replace(generation=[])
    changed = replace(result, societies=[start, society], data=[[first, *result.data[0][1:]]])
    loaded = load_export(export(changed, tmp_path / "new"))
    assert loaded.data == changed.data
    assert [path.name for path in finetuned(tmp_path / "new")] == ["generation-2", "generation-3"]
    assert loaded.societies[1].generators[0].model == str(tmp_path / "new/agents/base")
    names = [c["config_name"] for c in DatasetCard.load(tmp_path / "new/README.md").data.configs]
    assert "iteration-1-generation-1" not in names and "iteration-1-generation-2" in names


def test_a_base_model_from_the_hub_is_named_not_copied(runs, tmp_path, monkeypatch):
    """From a hub's cache on this disk, as a model that was fetched once."""
    cache = tmp_path / "cache" / "models--someone--mini"
    revision = "0123456789012345678901234567890123456789"
    shutil.copytree(runs.config.base_model, cache / "snapshots" / revision)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    config = runs.config.replace(model_name_or_path="someone/mini", runs_dir=str(tmp_path / "runs"))
    result = run_study("multiagent_ft_lora", "arithmetic", config, report=str)
    folder = export(result, tmp_path / "new")
    adapter = folder / "agents/iteration-1/critic-1"
    assert not (folder / "agents/base").exists()
    assert ModelCard.load(adapter / "README.md").data.base_model == "someone/mini"
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "someone/mini"
    loaded = load_export(folder)
    assert loaded.societies[1].summarizer.model == "someone/mini"
    check_places(folder, [tmp_path])
    problems = [debate.problem for debate in result.evaluations[1]]
    inner = TransformersBackend("cpu")
    inner.num_workers = 0  # other processes do not know of this hub
    backend = CachedBackend(inner, Store(tmp_path / "fresh"))
    assert run_debates(loaded.societies[1], problems, config, backend, 1) == result.evaluations[1]


def test_models_that_a_server_keeps_are_named(runs, tmp_path):
    """A finetuning job leaves a folder with the model's name in it, and no weights."""
    result = runs["majority_ft"]
    made = tmp_path / "checkpoint"
    made.mkdir()
    log = training_log(result.societies[1].generators[0].model)
    log |= {"num_tokens": None, "losses": []}  # a server need not tell
    (made / "training.json").write_text(json.dumps(log))
    (made / "openai.json").write_text('{"model": "ft:small:one"}')
    renamed = {result.config.base_model: "small", result.societies[1].generators[0].model: str(made)}
    societies = [
        replace(
            society,
            generators=tuple(replace(a, model=renamed[a.model]) for a in society.generators),
            critics=tuple(replace(a, model=renamed[a.model]) for a in society.critics),
            summarizer=replace(society.summarizer, model="small"),
        )
        for society in result.societies
    ]
    config = result.config.replace(backend="openai", model_name_or_path="small")
    hosted = replace(result, societies=societies, config=config)
    loaded = load_export(export(hosted, tmp_path / "new"))
    folder = tmp_path / "new/agents/iteration-1/generation-1"
    assert {path.name for path in folder.iterdir()} == {"README.md", "openai.json", "training.json"}
    assert loaded.societies[1].critics[2].model == str(folder)
    assert loaded.societies[0].summarizer.model == "small"
    card = (folder / "README.md").read_text()
    assert "The server keeps it" in card and "from_pretrained" not in card
    check_places(tmp_path / "new", [tmp_path])


def test_a_card_tells_of_a_training_that_diverged(runs, tmp_path):
    result = runs["star"]
    made = tmp_path / "checkpoint"
    shutil.copytree(result.societies[-1].generators[0].model, made)
    log = training_log(made) | {"stopped": {"step": 30, "num_steps": 40, "kept_step": 20, "loss": 9.0}}
    (made / "training.json").write_text(json.dumps(log))
    society = result.societies[-1]
    learner = replace(society.generators[0], model=str(made))
    societies = [*result.societies[:-1], replace(society, generators=(learner,))]
    export(replace(result, societies=societies), tmp_path / "new")
    card = finetuned(tmp_path / "new")[-1] / "README.md"
    assert "| diverged | at step 30 of 40; these are the weights of step 20 |" in card.read_text()


def test_other_prompts_come_along(runs, tmp_path):
    prompts = tmp_path / "mine.yml"
    text = (project_root() / "maft_lib/prompts/default.yml").read_text()
    prompts.write_text(f"# mine\n{text}")
    config = runs.config.replace(prompts=str(prompts))
    result = run_study("debate", "arithmetic", config, report=str)
    loaded = load_export(export(result, tmp_path / "new"))
    assert loaded.config.prompts == str(tmp_path / "new/prompts.yml")
    assert (tmp_path / "new/prompts.yml").read_bytes() == prompts.read_bytes()
    again = run_study(
        "debate", "arithmetic", loaded.config.replace(runs_dir=config.runs_dir), report=str
    )
    pd.testing.assert_frame_equal(again.frame, loaded.frame)
    check_places(tmp_path / "new", [tmp_path])


def test_answers_that_none_could_read_come_back_as_none(runs, tmp_path):
    frame = runs["debate"].frame.assign(answer=pd.Series([None] * 4, dtype=object), readable=False)
    loaded = load_export(export(replace(runs["debate"], frame=frame), tmp_path / "new"))
    pd.testing.assert_frame_equal(loaded.frame, frame)


# What is refused


def test_nothing_is_overwritten(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    export(runs["debate"], tmp_path / "empty")
    before = {name: path.stat().st_mtime_ns for name, path in files(tmp_path / "empty").items()}
    with pytest.raises(ExportError, match="holds something already: export into a new folder"):
        export(runs["debate"], tmp_path / "empty")
    assert {name: p.stat().st_mtime_ns for name, p in files(tmp_path / "empty").items()} == before
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="holds something already"):
        export(runs["debate"], tmp_path / "file")
    with pytest.raises(ExportError, match="cannot be exported .* name another folder"):
        export(runs["debate"], tmp_path / "file" / "below")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device", "x")])
def test_an_interrupted_export_leaves_nothing(error, runs, tmp_path, monkeypatch):
    copy, copied = shutil.copyfile, []

    def fail(source, target):
        copied.append(copy(source, target))
        if len(copied) == 20:
            raise error

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises((KeyboardInterrupt, ExportError)) as raised:
        export(runs["multiagent_ft"], tmp_path / "new")
    assert len(copied) == 20 and not list(tmp_path.iterdir())
    assert isinstance(error, KeyboardInterrupt) or "No space left on device: x" in str(raised.value)


def test_a_result_from_which_something_is_missing(runs, tmp_path):
    result = runs["majority_ft"]
    society = result.societies[1]
    lost = tuple(replace(a, model=str(tmp_path / "gone")) for a in society.generators)
    gone = replace(result, societies=[result.societies[0], replace(society, generators=lost)])
    with pytest.raises(ExportError, match="the model of generation-1 is no longer at .*gone: run the"):
        export(gone, tmp_path / "new")
    with pytest.raises(ExportError, match="the result has no config, which cards need: export what"):
        export(replace(result, config=None), tmp_path / "new")
    with pytest.raises(ExportError, match="the run has no iteration 7, only 0, 1"):
        export(result, tmp_path / "new", iterations=[1, 7])
    assert not list(tmp_path.iterdir())


def test_what_is_no_whole_export_is_not_loaded(exports, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(exports["star"], folder)
    (folder / "debates/iteration-1/eval.jsonl").unlink()
    with pytest.raises(ExportError, match="is damaged, debates/iteration-1/eval.jsonl is missing"):
        load_export(folder)
    shutil.copytree(exports["star"], folder, dirs_exist_ok=True)
    (folder / "agents/iteration-1/generation-1/model.safetensors").unlink()
    with pytest.raises(ExportError, match="generation-1/model.safetensors is missing: copy or export"):
        load_export(folder)
    shutil.copytree(exports["star"], folder, dirs_exist_ok=True)
    (folder / "scores.csv").write_text((folder / "scores.csv").read_text().replace("False", "True"))
    with pytest.raises(ExportError, match="scores.csv is altered"):
        load_export(folder)
    (folder / "SHA256SUMS").write_text("")
    with pytest.raises(ExportError, match="result.json is altered"):
        load_export(folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(ExportError, match="no finished export, it has no SHA256SUMS"):
        load_export(folder)
    with pytest.raises(ExportError, match="is no finished export"):
        load_export(tmp_path / "nowhere")
