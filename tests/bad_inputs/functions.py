"""Bad arguments of functions on debates, scores and tables: each a call and words of its error.

All are plain `ValueError`s: what is wrong is the call, and nothing that a study reads.
"""

import math
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import maft_lib as maft
from maft_lib.backends.scripted import ScriptedBackend
from maft_lib.debate import Debate, load_debates, run_debates, save_debates
from maft_lib.metrics import diversity
from maft_lib.prompts import load_prompts
from maft_lib.society import Agent, Society, base_society
from maft_lib.study import check_disjoint
from maft_lib.training.data import AgentData
from tests.conftest import debate, problem

TWO = [debate([["2", "2"], ["2", "3"]], "2", f"q{i}") for i in range(2)]
ONCE = [debate([["2"], ["2"]], "2")]  # one round
THREE = [debate([["2", "2"]] * 3, "2")]  # three agents
UNFINISHED = [replace(TWO[0], turns=(TWO[0].turns[0], ()))]
SOCIETY = base_society("base", 2)
BACKEND = ScriptedBackend(lambda request: "\\boxed{2}")
NOWHERE = Path(gettempdir()) / "no-such-folder"
CONFIG = maft.load_config("smoke")


class Silent:
    """A scorer that is never asked."""

    log_likelihoods = divergences = embeddings = None


def text(name, content):
    """A file of debates with this content, or a folder."""
    path = Path(gettempdir()) / f"maft-bad-debates-{name}.jsonl"
    path.write_bytes(content)
    return path


ROWS = {
    # Files and folders
    "prompts that are no path": (lambda: load_prompts(5), ["path is 5", "give a path"]),
    # Agents, societies, debates
    "a role of no agent": (lambda: Agent("a", "critik", "m"), ["role of an agent", "'critik'"]),
    "an agent without a model": (lambda: Agent("a", "critic", None), ["model of an agent is None"]),
    "an agent without a name": (lambda: Agent("", "critic", "m"), ["name of an agent is ''"]),
    "a society of nobody": (
        lambda: Society((), (), SOCIETY.summarizer),
        ["generators is empty", "at least one Agent"],
    ),
    "a society of names": (
        lambda: Society(("a",), SOCIETY.critics, SOCIETY.summarizer),
        ["generators[0] is 'a'"],
    ),
    "a society without a critic": (
        lambda: Society(SOCIETY.generators, SOCIETY.critics[:1], SOCIETY.summarizer),
        ["2 generation agents and 1 critic agents", "as many"],
    ),
    "critics in the generators' place": (
        lambda: Society(SOCIETY.critics, SOCIETY.generators, SOCIETY.summarizer),
        ["'critic-1' is a critic", "place of a generator"],
    ),
    "no summarizer": (
        lambda: Society(SOCIETY.generators, SOCIETY.critics, None),
        ["summarizer is None", "an Agent"],
    ),
    "a base society of no agents": (lambda: base_society("m", 0), ["num_agents is 0", "at least 1"]),
    "a base society of some": (lambda: base_society("m", "three"), ["num_agents is 'three'"]),
    "debates of no iteration": (
        lambda: run_debates(SOCIETY, [problem()], CONFIG, BACKEND, None),
        ["iteration is None", "a whole number"],
    ),
    "data without a seed": (
        lambda: maft.build_finetuning_data(TWO, 0.5, "x"),
        ["seed is 'x'", "a whole number"],
    ),
    "a notebook without names": (lambda: maft.notebook_config(None), ["namespace is None", "globals"]),
    "a notebook with no values of its own": (
        lambda: maft.notebook_config({}, "00_quickstart", 5),
        ["own is 5", "a dict"],
    ),
    "an explorer of words": (lambda: maft.DebateExplorer("x"), ["A str", "give"]),
    "an explorer of None": (lambda: maft.DebateExplorer([None]), ["A NoneType", "give"]),
    "debates of no society": (
        lambda: run_debates(None, [problem()], CONFIG, BACKEND),
        ["society is None", "base_society"],
    ),
    "debates of no problem": (
        lambda: run_debates(SOCIETY, [], CONFIG, BACKEND),
        ["problems is empty", "at least one Problem"],
    ),
    "debates of one problem alone": (
        lambda: run_debates(SOCIETY, problem(), CONFIG, BACKEND),
        ["problems is of type Problem", "a list"],
    ),
    "debates of a profile's name": (
        lambda: run_debates(SOCIETY, [problem()], "smoke", BACKEND),
        ["config is 'smoke'", "load_config"],
    ),
    "debates without a backend": (
        lambda: run_debates(SOCIETY, [problem()], CONFIG, None),
        ["backend is None", "open_backend"],
    ),
    "values of no debate": (lambda: Debate.from_dict({}), ["no debate", "turns", "to_dict"]),
    "a list for a debate": (lambda: Debate.from_dict([1]), ["no debate", "to_dict"]),
    "a response that is a number": (
        lambda: Debate.from_dict(
            TWO[0].to_dict()
            | {"turns": [[{"asked": "q", "summary": None, "response": 5, "answer": None}]]}
        ),
        ["no debate", "not 5"],
    ),
    "a debate without its problem": (
        lambda: Debate.from_dict({**TWO[0].to_dict(), "problem": None}),
        ["no debate", "NoneType"],
    ),
    "saved nowhere": (lambda: save_debates(TWO, NOWHERE / "d.jsonl"), ["make the folder"]),
    "nothing saved": (lambda: save_debates([], NOWHERE / "d.jsonl"), ["debates is empty"]),
    "loaded from nowhere": (lambda: load_debates(NOWHERE), ["cannot be read", "No such file"]),
    "loaded from None": (lambda: load_debates(None), ["path is None"]),
    "loaded from a folder": (lambda: load_debates(gettempdir()), ["cannot be read", "directory"]),
    "an empty file of debates": (lambda: load_debates(text("empty", b"")), ["is empty"]),
    "half a file of debates": (
        lambda: load_debates(text("half", b'{"problem": {')),
        ["half.jsonl, line 1", "save the debates again"],
    ),
    "numbers for debates": (
        lambda: load_debates(text("numbers", b"1\n2\n")),
        ["numbers.jsonl, line 1", "no debate"],
    ),
    "debates in no text": (
        lambda: load_debates(text("binary", b"\x80\x04\x95")),
        ["cannot be read", "UTF-8"],
    ),
    # Grading and votes
    "an answer that is a number": (lambda: maft.is_equivalent(5, "5", "gsm"), ["answer", "type int"]),
    "a response that is none": (lambda: maft.extract_answer(None, "gsm"), ["response", "NoneType"]),
    "a vote over one text": (lambda: maft.majority_vote("225", "gsm", 0), ["answers is no list"]),
    "a vote over numbers": (lambda: maft.majority_vote([2, 2], "gsm", 0), ["answer", "type int"]),
    "a vote without a seed": (lambda: maft.majority_vote(["2"], "gsm", None), ["seed is None"]),
    # Datasets
    "w below 0": (lambda: maft.build_finetuning_data(TWO, -0.1), ["w,", "-0.1", "from 0 to 1"]),
    "w above 1": (lambda: maft.build_finetuning_data(TWO, 1.1), ["w,", "1.1", "from 0 to 1"]),
    "w that is none": (lambda: maft.build_finetuning_data(TWO, math.nan), ["w,", "nan"]),
    "w as text": (lambda: maft.build_finetuning_data(TWO, "0.5"), ["w,", "'0.5'"]),
    "data from no debates": (lambda: maft.build_finetuning_data([], 0.5), ["debates is empty"]),
    "data from a result": (lambda: maft.build_finetuning_data(None, 0.5), ["debates is None"]),
    "data from iterations": (
        lambda: maft.build_finetuning_data([TWO], 0.5),
        ["debates[0] is of type list"],
    ),
    "data of two societies": (
        lambda: maft.build_finetuning_data([*TWO, *THREE], 0.5),
        ["debates[2] has 3 agents", "debates[0] 2", "one society"],
    ),
    "data of different rounds": (
        lambda: maft.build_finetuning_data([*TWO, *ONCE], 0.5),
        ["debates[2] has 2 agents and 1 rounds"],
    ),
    "data of a debate that was stopped": (
        lambda: maft.build_finetuning_data(UNFINISHED, 0.5),
        ["debates[0] did not come to its end"],
    ),
    "data for nobody": (lambda: maft.finetune("critic-1", [], CONFIG), ["agent is 'critic-1'"]),
    "data of all kinds": (
        lambda: maft.finetune(SOCIETY.critics[0], AgentData([], [], [], []), CONFIG),
        ["examples[0] is of type list", "Example"],
    ),
    "finetuning by a profile's name": (
        lambda: maft.finetune(SOCIETY.critics[0], [], "smoke"),
        ["config is 'smoke'"],
    ),
    # Studies
    "a study by a profile's name": (
        lambda: maft.run_study("base", "arithmetic", "smoke"),
        ["config is 'smoke'", "load_config"],
    ),
    "a study by a backend's name": (
        lambda: maft.run_study("base", "arithmetic", CONFIG, "vllm"),
        ["backend is 'vllm'", "open_backend"],
    ),
    "a study that reports to nobody": (
        lambda: maft.run_study("base", "arithmetic", CONFIG, BACKEND, True),
        ["report is True", "function"],
    ),
    "no studies": (lambda: maft.run_studies([]), ["studies is empty"]),
    "a study that is no list": (
        lambda: maft.run_studies(("base", "arithmetic", CONFIG)),
        ["studies[0] is no study"],
    ),
    "a study without a config": (
        lambda: maft.run_studies([("base", "arithmetic")]),
        ["studies[0] is no study", "(method, task, config)"],
    ),
    "the backend of a profile's name": (lambda: maft.open_backend("smoke"), ["config is 'smoke'"]),
    "the scorer of nothing": (lambda: maft.open_scorer(None), ["config is None"]),
    "an explorer of nothing": (lambda: maft.DebateExplorer([]), ["no debates to explore"]),
    "train problems in eval": (
        lambda: check_disjoint([problem("a")], [problem("A")]),
        ["1 problems are both", "take them out"],
    ),
    "no train problems": (lambda: check_disjoint([], [problem()]), ["train is empty"]),
    # Measures
    "likelihoods of critics that did not speak": (
        lambda: diversity.negative_log_likelihood(ONCE, SOCIETY, Silent()),
        ["second round"],
    ),
}
