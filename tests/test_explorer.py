"""The explorer: what happened in a debate, the index, and what its page holds."""

import base64
import gzip
import json
import subprocess
import sys
from dataclasses import replace

import nbconvert
import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from maft_lib.debate import Cost, Debate
from maft_lib.lab.debates import View
from maft_lib.lab.explorer import DebateExplorer, index_row
from maft_lib.study import Result
from tests.conftest import debate

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)"> & <b>'
FIXED, BROKE = {"critic_fixed_it"}, {"critic_broke_it"}
TO_RIGHT, TO_WRONG = {"vote_changed", "turned_right"}, {"vote_changed", "turned_wrong"}


def outcomes(answers, vote, truth="2"):
    """The outcomes of a debate, apart from whether its vote is right."""
    row = index_row(View(debate(answers, vote, truth=truth)))
    assert row["vote_right"] != row["vote_wrong"]
    assert row["vote_right"] == (vote == truth)
    return {name for name, value in row.items() if value is True} - {"vote_right", "vote_wrong"}


@pytest.mark.parametrize(
    ("answers", "vote", "expected"),
    [
        ([["2"]], "2", set()),  # one agent alone is neither unanimous nor split
        ([["2"], ["2.0"]], "2", {"unanimous_and_right"}),  # equivalent, not equal
        ([["3"], ["3"]], "3", {"unanimous_and_wrong"}),
        ([["3"], ["3"], [None]], "3", {"unparsable"}),  # not everybody says so
        ([[None], [None]], None, {"unparsable"}),
        ([["2"], ["2"], ["3"]], "2", {"split_vote"}),
        ([["2"], ["3"]], "3", {"split_vote", "tie"}),
        ([["2"], ["2"], ["3"], ["3"], ["4"]], "2", {"split_vote", "tie"}),
        ([["2"], ["2"], ["3"], ["4"]], "2", {"split_vote"}),
        # from here on two rounds: [first answer, last answer] of each agent
        ([["2", "2"], ["2", "2"]], "2", {"unanimous_and_right"}),
        ([["2", "2"], ["2", "2"], ["3", "2"]], "2", {"unanimous_and_right", *FIXED}),
        ([["2", "2"], ["2", "2"], [None, "2"]], "2", {"unanimous_and_right", *FIXED}),
        ([["2", "2"], ["2", "2"], ["2", None]], "2", {"unparsable", *BROKE}),
        ([["2", "3"], ["3", "2"], ["2", "2"]], "2", {"split_vote", *FIXED, *BROKE}),
        ([["3", "4"], ["3", "2"], ["2", "2"]], "2", {"split_vote", *FIXED, *TO_RIGHT}),
        ([["2", "3"], ["2", "3"], ["3", "3"]], "3", {"unanimous_and_wrong", *BROKE, *TO_WRONG}),
        # of two wrong answers, another won: the vote changed, and was turned neither way
        ([["3", "4"], ["3", "4"]], "4", {"unanimous_and_wrong", "vote_changed"}),
        # a first round that luck would have decided was turned neither way
        ([["2", "2"], ["3", "2"]], "2", {"unanimous_and_right", *FIXED}),
        ([["2", "3"], ["3", "3"]], "3", {"unanimous_and_wrong", *BROKE}),
        # nobody could be read first, so whatever came was turned right, and nothing right was lost
        ([[None, "2"], [None, "2"]], "2", {"unanimous_and_right", *FIXED, "turned_right"}),
        ([[None, "3"], [None, "3"]], "3", {"unanimous_and_wrong"}),
        # three rounds: first against last
        ([["3", "2", "3"], ["2", "3", "2"]], "2", {"split_vote", "tie"}),
    ],
)  # fmt: skip
def test_outcomes(answers, vote, expected):
    assert outcomes(answers, vote) == expected


def test_without_ground_truth_nothing_is_right_and_no_vote_wrong():
    row = index_row(View(debate([["2", "3"], ["2", "3"]], "3", truth="")))
    assert [name for name, value in row.items() if value is True] == ["vote_changed"]
    assert row["first_right"] == row["last_right"] == 0


# --- what can be explored --------------------------------------------------------------------------

QUESTIONS = [f"What is {n}+{n}?" for n in range(1, 5)]
WRONG, SPLIT, RIGHT = (
    ([["3", "3"], ["3", "3"]], "3"),
    ([["2", "2"], ["3", "3"]], "2"),
    ([["2", "2"]] * 2, "2"),
)


def result(method="debate", *iterations, config=None):
    """A Result whose debates on four problems, after each iteration, are the given kinds."""
    evaluations = [
        [debate(*kind, question=q) for kind, q in zip(kinds, QUESTIONS)] for kinds in iterations
    ]
    return Result(method, "arithmetic", pd.DataFrame(), evaluations=evaluations, config=config)


@pytest.fixture
def explorer():
    """Multiagent finetuning that learns two problems and forgets none; majority only before."""
    before = [WRONG, SPLIT, WRONG, RIGHT]
    finetuned = result("multiagent_ft", before, [RIGHT, RIGHT, WRONG, RIGHT], [RIGHT] * 4)
    return DebateExplorer([finetuned, result("majority", before[:2])])


def unpacked(page):
    """The data in a page, as its script reads them."""
    packed = BeautifulSoup(page, "html.parser").find("script", id="data").string
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def runs(explorer):
    return list(explorer.frame.run.unique())


def test_a_list_of_debates_is_indexed_in_order():
    debates = [debate(*kind, question=q) for kind, q in zip([WRONG, SPLIT, RIGHT], QUESTIONS)]
    explorer = DebateExplorer(debates)
    frame = explorer.frame
    assert explorer.debates == debates and list(frame.problem) == [d.problem.id for d in debates]
    assert list(frame.vote_right) == [False, True, True]
    assert list(frame.split_vote) == [False, True, False]
    assert list(frame.first_right) == [0, 1, 2]


def test_results_tell_method_and_iteration(explorer):
    frame = explorer.frame
    assert list(frame.method) == ["multiagent_ft"] * 12 + ["majority"] * 2
    assert list(frame.iteration) == [0] * 4 + [1] * 4 + [2] * 4 + [0] * 2
    assert runs(explorer) == [
        *(f"multiagent_ft, iteration {number}" for number in range(3)),
        "majority, iteration 0",
    ]
    assert repr(explorer) == "DebateExplorer(14 debates, 4 runs)"


def test_seeds_are_told_apart(config):
    seeds = [result("debate", [RIGHT], config=config.replace(seed=seed)) for seed in (0, 7)]
    assert runs(DebateExplorer(seeds)) == ["seed 0", "seed 7"]


def test_the_keys_of_a_dict_stand_where_the_methods_do():
    parts = {"before": result("debate", [WRONG]).evaluations[0], ("ours", 3): result("debate", [RIGHT])}
    explorer = DebateExplorer(parts)
    assert list(explorer.frame.method) == ["before", "ours, 3"]
    assert runs(explorer) == ["before", "ours, 3, iteration 0"]


@pytest.mark.parametrize("nothing", [[], {}, {"a": []}, Result("debate", "arithmetic", pd.DataFrame())])
def test_nothing_to_explore_is_an_error(nothing):
    with pytest.raises(ValueError, match="no debates"):
        DebateExplorer(nothing)


def test_what_is_no_debate_is_an_error():
    with pytest.raises(ValueError, match="str"):
        DebateExplorer(["debate"])
    with pytest.raises(ValueError, match="int"):
        DebateExplorer({"a": 1})


# --- the page --------------------------------------------------------------------------------------


def test_the_page_holds_every_debate_and_what_is_said_of_it(explorer):
    data = unpacked(explorer.page)
    assert data["runs"] == runs(explorer)
    assert [Debate.from_dict(row["debate"]) for row in data["debates"]] == explorer.debates
    wrong, tied, _, right = data["debates"][:4]
    assert wrong["outcomes"] == ["vote wrong", "unanimous and wrong"] == ["vote wrong", *wrong["words"]]
    assert wrong["before"] == "3" and wrong["vote"] == ["wrong", "A", "2 of 2 agents"]
    assert tied["before"] == "tie" and tied["vote"][2] == "two-way tie (A, B), drawn at random"
    assert (right["first_right"], right["last_right"], right["vote_right"]) == (2, 2, True)
    assert [row["run"] for row in data["debates"]] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 2


def test_each_turn_has_its_judgement_its_change_and_the_summary_it_read():
    found = unpacked(DebateExplorer([debate([["3", "2"], ["2", None]], "2")]).page)["debates"][0]
    first, last = found["turns"][0]
    assert first == ["wrong", "A", "", "", "", ""]
    assert last == ["right", "B", "wrong → right", "fixed", "summary", ""]
    assert found["turns"][1][1] == ["none", "", "lost its right answer", "broke", "summary", ""]


def test_each_turn_has_its_seed_tokens_and_seconds():
    spent = ((Cost(2**62 + 1, 1310, 87, 0.412),),)
    page = DebateExplorer([replace(debate([["2"]], "2"), costs=spent)]).page
    row = unpacked(page)["debates"][0]
    assert row["turns"][0][0][-1] == f"seed {2**62 + 1}, 1,310 tokens read, 87 written, 0.412 s"


def test_the_page_is_the_same_each_time(explorer):
    assert DebateExplorer(explorer.debates).page == DebateExplorer(explorer.debates).page


def test_what_models_and_problems_say_is_nowhere_in_the_page_as_markup():
    hostile = debate([[HOSTILE, "2"]] * 2, "2", question=HOSTILE, truth=HOSTILE)
    hostile = replace(hostile, problem=replace(hostile.problem, subject="</script><script>alert(3)"))
    explorer = DebateExplorer({HOSTILE: [hostile], "other": [debate(*RIGHT)]})
    assert "alert(" not in explorer.page and "onerror" not in explorer.page
    page = BeautifulSoup(explorer.page, "html.parser")
    assert [tag.get("type") for tag in page("script")] == ["text/plain", "application/json", None]
    policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none'; ") and "script-src 'sha256-" in policy
    data = unpacked(explorer.page)
    assert data["runs"][0] == HOSTILE and Debate.from_dict(data["debates"][0]["debate"]) == hostile


def test_half_a_character_can_be_saved(tmp_path):
    half = replace(debate(*RIGHT).turns[0][0], response="a \ud800 b")
    page = DebateExplorer([replace(debate([["2"]], "2"), turns=((half,),))]).save(
        tmp_path / "half.html"
    )
    found = unpacked(page.read_text(encoding="utf-8"))["debates"][0]["debate"]
    assert found["turns"][0][0]["response"] == "a \ud800 b"


def test_a_notebook_shows_the_page_in_a_frame_that_reaches_nothing(explorer):
    shown = BeautifulSoup(explorer._repr_html_(), "html.parser")
    assert shown.iframe["srcdoc"] == explorer.page
    assert set(shown.iframe["sandbox"]) == {"allow-scripts", "allow-downloads"}
    assert shown.find("script") is None and shown.iframe["title"] == "14 debates"


def test_a_converted_notebook_has_the_page(explorer):
    data = {"text/html": explorer._repr_html_(), "text/plain": repr(explorer)}
    output = nbformat.v4.new_output("display_data", data)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("explorer", outputs=[output])])
    html, _ = nbconvert.HTMLExporter(embed_images=True).from_notebook_node(notebook)
    frame = BeautifulSoup(html, "html.parser").find("iframe", class_="maft-explorer")
    assert len(unpacked(frame["srcdoc"])["debates"]) == 14


def test_the_page_is_saved_as_a_file(explorer, tmp_path):
    path = explorer.save(tmp_path / "debates.html")
    assert path.read_text(encoding="utf-8") == explorer.page


def test_a_thousand_debates_make_a_small_page():
    question = "What is {0}+{0}, you of many words? " + "x" * 200
    many = [debate(*(WRONG, SPLIT, RIGHT)[n % 3], question=question.format(n)) for n in range(1_000)]
    assert len(DebateExplorer(many).page) < 500_000


def test_debates_from_a_file_need_no_engine(tmp_path):
    path = tmp_path / "debates.json"
    path.write_text(json.dumps([debate(*RIGHT).to_dict()]))
    code = (
        "import json, sys\nfrom maft_lib.debate import Debate\n"
        "from maft_lib.lab.explorer import DebateExplorer\n"
        f"debates = map(Debate.from_dict, json.load(open({str(path)!r})))\n"
        "assert 'iframe' in DebateExplorer(debates)._repr_html_()\n"
        "assert not {'torch', 'maft_lib.run', 'ipywidgets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Debate.from_dict(json.loads(path.read_text())[0]) == debate(*RIGHT)
