"""Published numbers: each cell as in the paper's text, each oddity recomputed."""

import math
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from scipy.stats import binomtest

from maft_lib import reported
from maft_lib.config import project_root
from maft_lib.methods import METHODS
from maft_lib.metrics import statistics

PAPER = Path(__file__).parents[2] / "shared" / "paper"
MODELS = ["GPT-3.5", "Phi-3", "Mistral", "LLaMA-3"]
TASKS = ["arithmetic", "gsm", "math"]
SHAPES = {  # models, methods, tasks of each table
    "table_1": (MODELS, 6, TASKS),
    "table_2": (MODELS, 5, TASKS),
    "table_3": (["GPT-3.5"], 2, TASKS),
    "table_4": (["GPT-3.5", "Phi-3"], 3, TASKS),
    "table_5": (["LLaMA-3"], 4, ["math"]),
    "table_6": (["LLaMA-3"], 5, ["math_all_levels"]),
    "table_7": (["LLaMA-3"], 5, ["mmlu"]),
    "openreview_gsm": (["LLaMA-3"], 5, ["gsm"]),
}
PRINTED = {
    "Multiagent FT w/o summary": "multiagent_ft_wo_summary",
    "Multiagent FT w/o critic": "multiagent_ft_wo_critic",
    "Multiagent FT": "multiagent_ft",
    "Single-agent FT w/o debate": "single_agent_ft_wo_debate",
    "Single-agent FT": "single_agent_ft",
    "Cooperative (Base)": "cooperative",
    "Cooperative (FT)": "cooperative_ft",
    "Majority FT": "majority_ft",
    "Majority": "majority",
    "Unique ID": "unique_id",
    "Ours": "multiagent_ft",
    "Debate": "debate",
    "STaR": "star",
    "Base": "base",
}
CELL = re.compile(r"(\d+\.\d+)\D*?(?:±|\\pm)\D*?(\d+\.\d+)")
NAME = re.compile("|".join(re.escape(name) for name in PRINTED))


about = cache(reported.about)  # which reads its file every time


@cache
def cells(table):
    """{(model, method, task): (accuracy, standard error)}"""
    rows = reported.published(table).itertuples(index=False)
    return {tuple(row[:3]): tuple(row[3:]) for row in rows}


def listed(table, name):
    """The cells that `about` names."""
    models = about(table)[name]
    return {(m, k, t) for m, methods in models.items() for k, tasks in methods.items() for t in tasks}


def oddities(table):
    return " ".join(about(table)["oddities"])


def problems(table, cell):
    elsewhere = about(table).get("problems_elsewhere", {})
    return elsewhere.get(cell[0], {}).get(cell[2], about(table)["problems"])


def binomial(accuracy, num):
    return math.sqrt(accuracy * (100 - accuracy) / num)


def best_baseline(model, task):
    table = cells("table_1")
    return max(v for (m, k, t), v in table.items() if (m, t) == (model, task) and k != "multiagent_ft")


# Against the paper


def read_paper():
    """{table: [(method, [(accuracy, standard error) per column])]} in the order of the paper's text."""
    tables, rows = {}, []
    for line in (PAPER / "paper.txt").read_text(encoding="utf-8").splitlines():
        if caption := re.match(r"Table (\d): ", line):
            tables[f"table_{caption[1]}"], rows = rows, []
        elif "\t" in line and CELL.search(line):
            _, names, *columns = line.split("\t")
            found = [CELL.findall(column) for column in columns]
            methods = [PRINTED[name] for name in NAME.findall(names.replace("FT (Ours)", "FT"))]
            assert {len(column) for column in found} == {len(methods)}, line
            for number, method in enumerate(methods):
                rows.append((method, [tuple(map(float, column[number])) for column in found]))
    return tables


@pytest.mark.skipif(not (PAPER / "paper.txt").is_file(), reason="the paper's text is not here")
@pytest.mark.parametrize("table", [table for table in SHAPES if table.startswith("table")])
def test_every_cell_is_as_in_the_paper(table):
    models, _, tasks = SHAPES[table]
    printed, model, seen = {}, 0, set()
    for method, row in read_paper()[table]:
        if method in seen:  # the next model's block
            model, seen = model + 1, set()
        seen.add(method)
        printed |= {(models[model], method, task): cell for task, cell in zip(tasks, row, strict=True)}
    assert printed == cells(table)


@pytest.mark.skipif(not (PAPER / "paper.txt").is_file(), reason="the paper's text is not here")
def test_pages_follow_from_the_reference_list():
    text = (PAPER / "paper.txt").read_text(encoding="utf-8")
    pages = {}
    for work in ("The llama 3 herd of models", "Chatgpt: Optimizing language models"):
        entry = text[text.index(work) :].split("\n")[0]
        pages[work] = [int(page) for page in re.search(r"([\d, ]+)$", entry)[1].split(",")]
    (section, one, two), (*same, five, six, seven) = pages.popitem()[1], pages.popitem()[1]
    assert same == [section, one, two] == [6, 7, 8]
    wanted = {"table_1": one, "table_2": two, "table_5": five, "table_6": six, "table_7": seven}
    assert wanted == {table: reported.about(table)["page"] for table in wanted}


@pytest.mark.skipif(not (PAPER / "openreview.txt").is_file(), reason="the discussion is not here")
def test_the_discussions_numbers_are_in_its_text():
    text = (PAPER / "openreview.txt").read_text(encoding="utf-8")
    for (_, method, _), (accuracy, error) in cells("openreview_gsm").items():
        (name,) = {n for n, m in PRINTED.items() if m == method and f"| {n} | {accuracy:.2f}" in text}
        assert f"| {name} | {accuracy:.2f} {error:.2f} |" in text
    texts = reported.numbers("openreview")
    for number in texts["training_tokens"]["values"].values():
        assert f"{number} tokens" in text
    diversity = re.findall(r"\| ([\w/ -]+?)(?: \(ours\))? \| (0\.\d+) \|", text)
    names = {name.replace("Single Agent", "Single-agent"): float(value) for name, value in diversity}
    assert {PRINTED[n]: v for n, v in names.items()} == texts["diversity"]["values"]
    assert f"achieving {texts['mmlu']['values']['multiagent_ft']:.2f}%" in text
    assert "120 GB" in text and "about 240 GB" in text and "12-16 hours" in text and "24 hours" in text
    assert "eight H100 GPUs and four 40GB A100 GPUs" in text


@pytest.mark.skipif(not (PAPER / "paper.txt").is_file(), reason="the paper's text is not here")
def test_numbers_in_sentences_are_in_the_paper():
    text = (PAPER / "paper.txt").read_text(encoding="utf-8")
    values = reported.numbers("figure_1_text")["values"]
    for model in values.values():
        assert f"from {model['first']}% to {model['last']}%" in text
    leads = [model["lead_over_best_baseline"] for model in values.values()]
    assert "{}% and {}% more accurate".format(*leads) in text
    for sentence in (
        "four H100 GPUs or four A100 GPUs",
        "between 120GB - 240GB",
        "between 12-24 hours",
        "eight 40GB A100 GPUs and four 80GB H100 GPUs",
        "approximately 30 to 36 hours",
        "three distinct base language models",
        "to construct nonoverlapping confidence bars",
    ):
        assert sentence in text


# Always


@pytest.mark.parametrize("table", SHAPES)
def test_tables_are_whole_and_within_bounds(table):
    frame = reported.published(table)
    models, num_methods, tasks = SHAPES[table]
    missing = 3 if table == "table_1" else 0  # STaR of LLaMA-3
    assert list(frame.columns) == ["model", "method", "task", "accuracy", "standard_error"]
    assert list(frame.model.unique()) == models and list(frame.task.unique()) == tasks
    assert len(frame) == len(models) * num_methods * len(tasks) - missing
    assert not frame.duplicated(["model", "method", "task"]).any()
    assert set(frame.method) <= set(METHODS)
    assert frame.accuracy.between(10, 100).all() and frame.standard_error.between(0, 2.3).all()


def test_the_file_keeps_the_shape_that_notebooks_read():
    whole = yaml.safe_load((project_root() / "params" / "reported.yml").read_text())
    assert whole["table_1"]["GPT-3.5"]["base"]["arithmetic"] == [81.99, 0.99]
    assert set(whole) == {*whole["about"], "about"} > set(SHAPES)
    for about in whole["about"].values():
        assert {"title", "section", "page", "problems", "oddities"} <= set(about)
        assert all(isinstance(oddity, str) and oddity.endswith(".") for oddity in about["oddities"])


def test_what_is_returned_can_be_changed_without_harm():
    reported.about("table_1")["oddities"].clear()
    reported.numbers("openreview").clear()
    assert reported.about("table_1")["oddities"] and reported.numbers("openreview")


# Oddities


@pytest.mark.parametrize("table", SHAPES)
def test_odd_errors_and_accuracies_are_exactly_those_listed(table):
    off, broken = set(), set()
    for cell, (accuracy, error) in cells(table).items():
        num = problems(table, cell)
        if abs(error - binomial(accuracy, num)) > 0.05:
            off.add(cell)
        if abs(accuracy * num / 100 - round(accuracy * num / 100)) > 1e-6:
            broken.add(cell)
    assert off == listed(table, "errors_off") and broken == listed(table, "not_whole")


def test_oddities_of_table_1():
    table, said = cells("table_1"), oddities("table_1")
    assert {m for m, method, _ in table if method == "star"} == set(MODELS) - {"LLaMA-3"}
    (ours, ours_error), (other, other_error) = (
        table["GPT-3.5", method, "gsm"] for method in ("multiagent_ft", "majority_ft")
    )
    low, high = ours - ours_error, other + other_error
    assert low < high
    assert f"{ours:.2f} - {ours_error} = {low:.2f}" in said
    assert f"{other:.2f} + {other_error} = {high:.2f}" in said
    off = listed("table_1", "errors_off")
    mistral = sum(model == "Mistral" for model, _, _ in off)
    assert f"{len(off)} are not" in said and f"{mistral} of Mistral's 18" in said
    accuracy, error = table["Mistral", "majority", "gsm"]
    assert f"{error} where 500 problems give {binomial(accuracy, 500):.2f}" in said
    most = binomial(50, 500)
    assert f"exceed {most:.2f}" in said
    beyond = {cell for cell, (_, error) in table.items() if error > round(most, 2)}
    assert beyond == {("GPT-3.5", "base", "math"), ("Phi-3", "debate", "math")}
    assert all(str(table[cell][1]) in said for cell in beyond)
    for method, task in (("majority", "math"), ("multiagent_ft", "gsm")):
        (a, error_a), (b, error_b) = table["Phi-3", method, task], table["LLaMA-3", method, task]
        assert a == b and error_a != error_b
        assert f"{a:.2f} ± {error_a}" in said and f"{b:.2f} ± {error_b}" in said
    leads = [
        statistics.standard_errors_apart(*table[m, "multiagent_ft", t], *best_baseline(m, t))
        for m in MODELS
        for t in TASKS
    ]
    assert f"{sum(z < 1.96 for z in leads)} of the {len(leads)} leads" in said and min(leads) > 0


def test_oddities_of_table_2():
    one, two, said = cells("table_1"), cells("table_2"), oddities("table_2")
    differ = {cell for cell in one if cell in two and one[cell] != two[cell]}
    assert differ == {("GPT-3.5", "multiagent_ft", "gsm"), ("Mistral", "multiagent_ft", "arithmetic")}
    assert all(one[cell][0] == two[cell][0] for cell in differ)
    assert "1.11 in Table 1 and 1.67 here" in said and "0.97 and 1.87" in said
    assert {one[c][1] for c in differ} == {1.11, 0.97} and {two[c][1] for c in differ} == {1.67, 1.87}
    for cell, (accuracy, error) in two.items():
        if cell[0] == "GPT-3.5" and cell[2] == "gsm":
            fits = abs(error - binomial(accuracy, 500)) < 0.05
            assert fits != (cell[1] == "multiagent_ft")
    assert f"({binomial(85.6, 500):.2f}) nor 1,000 ({binomial(85.6, 1000):.2f})" in said
    below = {c for c, (accuracy, _) in two.items() if accuracy <= one[c[0], "debate", c[2]][0]}
    assert below == listed("table_2", "below_debate")
    for method, gap in (("multiagent_ft_wo_summary", 4.0), ("multiagent_ft_wo_critic", 4.9)):
        accuracy = two["GPT-3.5", method, "math"][0]
        assert one["GPT-3.5", "debate", "math"][0] - accuracy == pytest.approx(gap, abs=0.05)
        assert f"({accuracy:.2f})" in said
    weakest = [c for c, (a, _) in two.items() if a < one[c[0], "base", c[2]][0]]
    assert weakest == [("GPT-3.5", "single_agent_ft_wo_debate", "gsm")]
    best = {
        (m, t)
        for m in MODELS
        for t in TASKS
        if two[m, "single_agent_ft", t][0] > best_baseline(m, t)[0]
    }
    assert {(m, t) for m in MODELS for t in TASKS} - best == {
        ("GPT-3.5", "gsm"),
        ("LLaMA-3", "arithmetic"),
    }
    assert f"in {len(best)} of the 12" in said


def test_oddities_of_tables_3_to_7():
    three, four = cells("table_3"), cells("table_4")
    accuracy, error = three["GPT-3.5", "cooperative_ft", "arithmetic"]
    assert f"{error} where 500 problems give {binomial(accuracy, 500):.2f}" in oddities("table_3")
    for table in (three, four):
        for (model, _, task), (accuracy, error) in table.items():
            if model == "GPT-3.5" and task == "gsm":
                assert error == pytest.approx(binomial(accuracy, 500), abs=0.05)
    assert four["GPT-3.5", "multiagent_ft", "arithmetic"] == (100, 0)
    low, high = binomtest(500, 500).proportion_ci(method="wilson")
    assert f"{100 * low:.2f} to {100 * high:.0f}" in oddities("table_4")
    assert {method for _, method, _ in four} == {"debate", "majority_ft", "multiagent_ft"}
    one, five = cells("table_1"), cells("table_5")
    assert all(one[cell] == five[cell] for cell in five if cell[1] != "unique_id")
    assert five["LLaMA-3", "unique_id", "math"][0] < five["LLaMA-3", "debate", "math"][0]
    for table in ("table_6", "table_7", "openreview_gsm"):
        assert "star" not in {method for _, method, _ in cells(table)}


def test_oddities_of_the_discussion_and_the_text():
    one, gsm, said = cells("table_1"), cells("openreview_gsm"), oddities("openreview_gsm")
    ours = ("LLaMA-3", "multiagent_ft", "gsm")
    assert f"{one[ours][0] - gsm[ours][0]:.1f} points below" in said
    gaps, apart = [], []
    for method in ("base", "majority"):
        cell = ("LLaMA-3", method, "gsm")
        gaps.append(f"{one[cell][0] - gsm[cell][0]:.1f}")
        apart.append(f"{statistics.standard_errors_apart(*one[cell], *gsm[cell]):.1f}")
    assert f"{' and '.join(gaps)} points" in said and f"{' and '.join(apart)} standard errors" in said

    values = reported.numbers("figure_1_text")["values"]
    for model, lead in (("Phi-3", 12.6), ("Mistral", 9.29)):
        best = best_baseline(model, "math")[0]
        assert values[model]["last"] - best == pytest.approx(lead)
        assert values[model]["first"] == one[model, "multiagent_ft", "math"][0]
    assert values["Mistral"]["lead_over_best_baseline"] == 9.31 and "9.29" in oddities("figure_1_text")

    tokens = reported.numbers("openreview")["training_tokens"]["values"]
    society = 3 * (tokens["generation_agent"] + tokens["critic_agent"])
    said = oddities("openreview")
    assert f"{society:,}" in said and f"{society / tokens['majority_ft']:.2f} times" in said
    assert reported.numbers("openreview")["mmlu"]["values"]["multiagent_ft"] == 68.8
    assert cells("table_7")["LLaMA-3", "multiagent_ft", "mmlu"][0] == 68.8

    cost, rebuttal = reported.numbers("cost_text"), reported.numbers("openreview")
    gpus = [place["values"] for place in (*cost.values(), rebuttal["gpus"])]
    assert [(g["h100"], g["a100"]) for g in gpus] == [(4, 4), (4, 8), (8, 4)]
    hours = [cost["section_6"]["values"]["hours"], cost["appendix_b_3"]["values"]["hours"]]
    hours.append(rebuttal["inference_hours"]["values"]["several_gpus"])
    assert hours == [[12, 24], [30, 36], [12, 16]]
    assert all(f"{low} to {high}" in oddities("cost_text") for low, high in hours[:1] + hours[2:])
