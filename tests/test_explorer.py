"""The explorer: what happened in a debate, the index, and the real controls, driven as a user does."""

import json
import subprocess
import sys
from dataclasses import replace

import ipywidgets as widgets
import nbconvert
import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from maft_lib.debate import Debate
from maft_lib.lab.explorer import DebateExplorer, index_row
from maft_lib.study import Result
from tests.conftest import debate

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)"> & <b>'
FIXED, BROKE = {"critic_fixed_it"}, {"critic_broke_it"}


def outcomes(answers, vote, truth="2"):
    """The outcomes of a debate, apart from whether its vote is right."""
    row = index_row(debate(answers, vote, truth=truth))
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
        ([["3", "4"], ["3", "2"], ["2", "2"]], "2", {"split_vote", *FIXED, "turned_right"}),
        ([["2", "3"], ["2", "3"], ["3", "3"]], "3", {"unanimous_and_wrong", *BROKE, "turned_wrong"}),
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
    row = index_row(debate([["2", "3"], ["2", "3"]], "3", truth=""))
    assert True not in list(row.values())
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


def control(explorer, name):
    """The one control with this class."""
    found = [
        widget for widget in walk(explorer) if f"maft-{name}" in getattr(widget, "_dom_classes", ())
    ]
    assert len(found) == 1, name
    return found[0]


def walk(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


def is_shown(explorer, name):
    return control(explorer, name).layout.display != "none"


def choose(explorer, name, label):
    """Picks an option by what it is called."""
    control(explorer, name).label = label


def page(explorer):
    return BeautifulSoup(control(explorer, "screen").value, "html.parser")


def runs(explorer):
    return list(explorer.frame.run.unique())


def matching(explorer):
    return [explorer.debates[place] for _, place in control(explorer, "list").options]


def is_compared(explorer):
    return len(page(explorer).select(".maft-rounds")) == 2


def listed(explorer):
    return [line for line, _ in control(explorer, "list").options]


def test_a_list_of_debates_is_indexed_in_order():
    debates = [debate(*kind, question=q) for kind, q in zip([WRONG, SPLIT, RIGHT], QUESTIONS)]
    explorer = DebateExplorer(debates)
    frame = explorer.frame
    assert list(frame.problem) == [d.problem.id for d in debates]
    assert list(frame.vote_right) == [False, True, True] and list(frame.split_vote) == [
        False,
        True,
        False,
    ]
    assert list(frame.first_right) == [0, 1, 2]
    assert matching(explorer) == debates and explorer.selected is debates[0]
    assert listed(explorer) == [
        f"{m} {q}" for m, q in zip(["✗ 0→0/2", "✓ 1→1/2", "✓ 2→2/2"], QUESTIONS)
    ]


def test_lines_for_a_lone_agent_and_for_no_vote():
    explorer = DebateExplorer(
        [debate([["2"]], "2"), debate([[None], [None]], None), debate([["2"]], "2", truth="")]
    )
    assert listed(explorer) == ["✓ What is 1+1?", "– 0/2 What is 1+1?", "? What is 1+1?"]


def test_results_tell_method_and_iteration(explorer):
    frame = explorer.frame
    assert list(frame.method) == ["multiagent_ft"] * 12 + ["majority"] * 2
    assert list(frame.iteration) == [0] * 4 + [1] * 4 + [2] * 4 + [0] * 2
    assert runs(explorer) == [
        *(f"multiagent_ft, iteration {number}" for number in range(3)),
        "majority, iteration 0",
    ]
    assert listed(explorer)[0] == "✗ 0→0/2 [multiagent_ft, iteration 0] What is 1+1?"


def test_seeds_are_told_apart(config):
    seeds = [result("debate", [RIGHT], config=config.replace(seed=seed)) for seed in (0, 7)]
    assert runs(DebateExplorer(seeds)) == ["seed 0", "seed 7"]
    choose(explorer := DebateExplorer(seeds), "seed", "7")
    assert matching(explorer) == seeds[1].evaluations[0]


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


# --- filters ---------------------------------------------------------------------------------------


def test_filters_narrow_and_count(explorer):
    choose(explorer, "method", "multiagent_ft")
    choose(explorer, "iteration", "1")
    choose(explorer, "outcome", "unanimous and right")
    assert [d.problem.question for d in matching(explorer)] == [QUESTIONS[i] for i in (0, 1, 3)]
    assert "3 of 14 debates match, this is number 1." in control(explorer, "count").value.replace(
        "<b>", ""
    ).replace("</b>", "")
    assert listed(explorer)[0] == "✓ 2→2/2 [multiagent_ft, iteration 1] What is 1+1?"
    control(explorer, "search").value = "4+4 WHAT"
    assert [d.problem.question for d in matching(explorer)] == [QUESTIONS[3]]
    control(explorer, "clear").click()
    assert len(matching(explorer)) == 14 and control(explorer, "search").value == ""


def test_filters_offer_only_what_there_is(explorer):
    assert not any(is_shown(explorer, name) for name in ("task", "level", "seed"))
    assert is_shown(explorer, "method") and is_shown(explorer, "iteration")
    offered = [label for label, _ in control(explorer, "outcome").options]
    assert "tie" in offered and "unparsable" not in offered and offered[0] == "all"
    alone = DebateExplorer([debate(*RIGHT)])
    hidden = ("task", "level", "method", "iteration", "seed", "compare")
    assert not any(is_shown(alone, name) for name in hidden)


def test_tasks_and_levels_filter():
    easy, hard = debate(*RIGHT, question="easy"), debate(*RIGHT, question="hard")
    easy, hard = (replace(d, problem=replace(d.problem, level=n)) for d, n in ((easy, 1), (hard, 5)))
    other = replace(easy, problem=replace(easy.problem, task="mini_gsm", level=None, id="other"))
    explorer = DebateExplorer([hard, easy, other])
    assert [label for label, _ in control(explorer, "level").options] == ["all", "1", "5"]
    choose(explorer, "level", "5")
    assert matching(explorer) == [hard]
    choose(explorer, "level", "all")
    choose(explorer, "task", "mini_gsm")
    assert matching(explorer) == [other]


def test_no_match_says_so_and_clears(explorer):
    first = explorer.selected
    control(explorer, "search").value = "no such words"
    assert matching(explorer) == [] and explorer.selected is None and not is_compared(explorer)
    assert listed(explorer) == [] and control(explorer, "list").index is None
    assert "No debate matches these filters" in page(explorer).text
    control(explorer, "compare").index = 2
    assert "No debate matches" in page(explorer).text
    control(explorer, "clear").click()
    assert explorer.selected is first and "What is 1+1?" in page(explorer).text


def test_the_debate_on_screen_stays_if_it_still_matches(explorer):
    control(explorer, "list").index = 7
    shown = explorer.selected
    choose(explorer, "outcome", "vote right")
    assert explorer.selected is shown
    choose(explorer, "outcome", "vote wrong")
    assert explorer.selected is explorer.debates[0]


# --- leafing through -------------------------------------------------------------------------------


def test_what_is_selected_in_the_list_is_shown(explorer):
    assert explorer.selected is explorer.debates[0]
    control(explorer, "list").index = 13
    assert explorer.selected is explorer.debates[13] and QUESTIONS[1] in page(explorer).text


def test_controls_are_never_replaced_nor_disabled(explorer):
    before = list(walk(explorer))
    control(explorer, "clear").click()
    choose(explorer, "outcome", "tie")
    control(explorer, "search").value = "nothing like it"
    control(explorer, "compare").index = 1
    assert list(walk(explorer)) == before
    assert not any(getattr(widget, "disabled", False) for widget in before)


# --- side by side ----------------------------------------------------------------------------------


def test_the_same_problem_before_and_after(explorer):
    assert not is_compared(explorer)
    choose(explorer, "compare", "multiagent_ft, iteration 2")
    assert explorer.selected is explorer.debates[0]
    before, after = page(explorer).find_all("section")
    assert "multiagent_ft, iteration 0" in before.text and "unanimous and wrong" in before.text
    assert "multiagent_ft, iteration 2" in after.text and "unanimous and right" in after.text
    control(explorer, "list").index = 1
    assert len(page(explorer).find_all("section")) == 2
    choose(explorer, "compare", "nothing")
    assert not is_compared(explorer) and len(page(explorer).find_all("section")) == 1


def test_a_run_without_the_problem_and_the_run_itself_say_so(explorer):
    control(explorer, "list").index = 11
    for run in ("majority, iteration 0", "multiagent_ft, iteration 2"):
        choose(explorer, "compare", run)
        assert not is_compared(explorer)
        assert "no other debate" in page(explorer).find_all("section")[1].text


def test_what_a_comparison_changed_can_be_filtered(explorer):
    choose(explorer, "method", "multiagent_ft")
    choose(explorer, "iteration", "0")
    choose(explorer, "outcome", "became right there")
    assert matching(explorer) == []  # nothing to compare with yet
    choose(explorer, "compare", "multiagent_ft, iteration 1")
    assert [d.problem.question for d in matching(explorer)] == [QUESTIONS[0]]
    choose(explorer, "compare", "multiagent_ft, iteration 2")
    assert [d.problem.question for d in matching(explorer)] == [QUESTIONS[0], QUESTIONS[2]]
    choose(explorer, "outcome", "became wrong there")
    assert matching(explorer) == []
    choose(explorer, "iteration", "2")
    choose(explorer, "compare", "multiagent_ft, iteration 0")
    assert [d.problem.question for d in matching(explorer)] == [QUESTIONS[0], QUESTIONS[2]]


# --- without a kernel ------------------------------------------------------------------------------


def test_pages_without_a_kernel_get_the_debate_as_html(explorer):
    choose(explorer, "iteration", "2")
    bundle = explorer._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert bundle["text/plain"] == "DebateExplorer(14 debates, 4 runs)"
    html = BeautifulSoup(bundle["text/html"], "html.parser")
    assert "multiagent_ft, iteration 2" in html.text and "I say" in html.text


def test_a_converted_notebook_shows_the_debate(explorer):
    output = nbformat.v4.new_output("display_data", explorer._repr_mimebundle_())
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("explorer", outputs=[output])])
    html, _ = nbconvert.HTMLExporter(embed_images=True).from_notebook_node(notebook)
    shown = BeautifulSoup(html, "html.parser").find(class_="maft-debate")
    assert "What is 1+1?" in shown.text and "multiagent_ft, iteration 0" in shown.text


def test_keys_are_kept_from_jupyterlab_by_a_hidden_script(explorer):
    scripts = [widget for widget in walk(explorer) if isinstance(widget, widgets.Output)]
    assert len(scripts) == 1 and scripts[0].layout.display == "none"
    assert "data-lm-suppress-shortcuts" in scripts[0].outputs[0]["data"]["application/javascript"]


# --- hostile and many ------------------------------------------------------------------------------


def test_what_models_and_problems_say_stays_text():
    hostile = debate([[HOSTILE, "2"]] * 2, "2", question=HOSTILE, truth=HOSTILE)
    explorer = DebateExplorer({HOSTILE: [hostile], "other": [debate(*RIGHT)]})
    choose(explorer, "compare", "other")
    for html in (control(explorer, "screen").value, explorer._repr_mimebundle_()["text/html"]):
        found = BeautifulSoup(html, "html.parser")
        assert not found.find_all(["script", "img"])
        assert not [tag for tag in found.find_all() if any(name.startswith("on") for name in tag.attrs)]
        assert found.text.count("alert(1)") >= 3
    assert listed(explorer)[0].endswith(HOSTILE)  # options are text, not HTML
    described = [w for w in walk(explorer) if getattr(w, "description_allow_html", False)]
    assert not described


def many(num):
    return [
        debate(
            *(WRONG, SPLIT, RIGHT)[n % 3], question=f"What is {n}+{n}, you of many words? " + "x" * 200
        )
        for n in range(num)
    ]


def test_a_thousand_debates_are_a_dozen_widgets():
    few, all_of_them = DebateExplorer(many(2)), DebateExplorer(many(1_000))
    assert len(list(walk(few))) == len(list(walk(all_of_them)))
    assert len(listed(all_of_them)) == 1_000 and max(map(len, listed(all_of_them))) < 120
    assert len(control(all_of_them, "screen").value) < 100_000
    choose(all_of_them, "outcome", "tie")
    assert len(matching(all_of_them)) == len(listed(all_of_them)) == 333
    control(all_of_them, "list").index = 332
    assert all_of_them.selected.problem.question.startswith("What is 997+997")


def test_debates_from_a_file_need_no_engine(tmp_path):
    path = tmp_path / "debates.json"
    path.write_text(json.dumps([debate(*RIGHT).to_dict()]))
    code = (
        "import json, sys\nfrom maft_lib.debate import Debate\n"
        "from maft_lib.lab.explorer import DebateExplorer\n"
        f"debates = map(Debate.from_dict, json.load(open({str(path)!r})))\n"
        "assert DebateExplorer(debates).selected.vote == '2'\n"
        "assert not {'torch', 'maft_lib.run'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Debate.from_dict(json.loads(path.read_text())[0]) == debate(*RIGHT)
