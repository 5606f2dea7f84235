"""Tables and figures: the right cell is bold, files are written, figures are reproducible."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from maft_lib import plots, tables
from maft_lib.methods import METHODS
from maft_lib.metrics import statistics
from maft_lib.profiles import load_config

matplotlib.use("Agg")

ACCURACIES = pd.DataFrame(
    [
        ("base", "arithmetic", 50.0, 2.0),
        ("debate", "arithmetic", 60.0, 2.1),
        ("multiagent_ft", "arithmetic", 70.0, 1.9),
        ("base", "mini_gsm", 70.0, 1.0),
        ("debate", "mini_gsm", 70.0, 1.0),
    ],
    columns=["method", "task", "accuracy", "standard_error"],
)


def test_best_is_bold_second_underlined_and_the_rest_not_yet_run(tmp_path):
    table = tables.methods_by_task(ACCURACIES, ["arithmetic", "mini_gsm"])
    assert table.loc["Multiagent FT (ours)", "arithmetic"] == "**70.0** ± 1.9"
    assert table.loc["Debate", "arithmetic"] == "_60.0_ ± 2.1"
    assert table.loc["Base", "arithmetic"] == "50.0 ± 2.0"
    assert list(table["mini_gsm"])[:3:2] == ["**70.0** ± 1.0", "**70.0** ± 1.0"]
    assert table.loc["STaR", "arithmetic"] == "not yet run"
    paths = tables.save_table(table, tmp_path / "table01", numbers=ACCURACIES)
    markdown, latex, csv = (path.read_text() for path in paths)
    assert "**70.0** ± 1.9" in markdown
    assert "\\textbf{70.0} $\\pm$ 1.9" in latex and "\\toprule" in latex and "mini\\_gsm" in latex
    assert csv.splitlines()[1] == "base,arithmetic,50.0000,2.0000"


COSTS = pd.DataFrame(
    {
        "method": ["base", "debate", "multiagent_ft"],
        "tokens": [55889, 1_234_567, np.nan],
        "training tokens": [0, 0, 353814],
        "calls": [200, 1200, 1200],
        "seconds": [12.34, 790.2, 1000.6],
        "memory": [3.72, 3.72, 120],
    }
).set_index("method")


def test_marks_are_decided_on_unrounded_accuracies_and_ties_share_them():
    close = [("base", 50.02), ("majority", 50.04), ("debate", 50.04 + 1e-12), ("star", 50.0)]
    frame = pd.DataFrame([(m, "gsm", a, 1.0) for m, a in close], columns=ACCURACIES.columns)
    column = list(tables.methods_by_task(frame, ["gsm"])["gsm"])
    assert column[:4] == ["_50.0_ ± 1.0", "**50.0** ± 1.0", "**50.0** ± 1.0", "50.0 ± 1.0"]


def test_a_column_nobody_ran_and_an_accuracy_that_is_missing_say_so():
    frame = pd.concat([ACCURACIES, ACCURACIES.tail(1).assign(task="gsm", accuracy=np.nan)])
    table = tables.methods_by_task(frame, ["gsm", "math"])
    assert set(table.to_numpy().ravel()) == {tables.NOT_RUN}


def test_two_rows_for_one_cell_are_refused():
    with pytest.raises(ValueError, match="several rows for a method and task"):
        tables.methods_by_task(pd.concat([ACCURACIES, ACCURACIES.head(1)]), ["arithmetic"])
    with pytest.raises(ValueError, match="duplicate"):
        tables.methods_by_task(ACCURACIES, ["arithmetic"], costs=pd.concat([COSTS, COSTS]))


def test_leads_that_may_be_luck_have_a_dagger(tmp_path):
    rng = np.random.default_rng(0)
    shares = {"arithmetic": (0.5, 0.52), "gsm": (0.4, 0.9), "math": (0.6, 0.3)}
    scores = pd.concat(
        pd.DataFrame(
            {"method": m, "task": t, "seed": 0, "problem": range(200), "correct": rng.random(200) < p}
        )
        for t, pair in shares.items()
        for m, p in zip(("debate", "multiagent_ft"), pair)
    )
    accuracies = scores.groupby(["method", "task"], sort=False).correct.agg(
        accuracy=lambda c: 100 * c.mean(), standard_error=lambda c: 100 * statistics.standard_error(c)
    )
    significance = statistics.compare(scores, ["debate"])
    table = tables.methods_by_task(accuracies.reset_index(), list(shares), significance=significance)
    ours = table.loc["Multiagent FT (ours)"]
    assert ours["arithmetic"].startswith("**") and ours["arithmetic"].endswith("†")
    assert "†" not in ours["gsm"] and ours["gsm"].startswith("**")  # a lead, and a sure one
    assert "†" not in ours["math"]  # no lead
    assert not any("†" in cell for cell in table.loc["Debate"])
    assert table.attrs["note"] == tables.NOTE and tables.NOTE.startswith("†")
    markdown, latex, _ = (p.read_text() for p in tables.save_table(table, tmp_path / "table"))
    assert markdown.endswith(f"\n\n{tables.NOTE}\n")
    assert "$^{\\dagger}$ & " in latex
    check_latex(latex)


def test_unreadable_and_costs_are_groups_of_columns(tmp_path):
    frame = ACCURACIES.assign(unreadable=[0, 1.25, 2, 3, 4])
    table = tables.methods_by_task(frame, ["arithmetic", "mini_gsm"], unreadable=True, costs=COSTS)
    groups = table.columns.get_level_values(0)
    assert list(groups) == ["accuracy (%)"] * 2 + ["unreadable (%)"] * 2 + ["cost"] * 5
    assert table.loc["Debate", ("accuracy (%)", "arithmetic")] == "_60.0_ ± 2.1"
    assert table.loc["Debate", ("unreadable (%)", "arithmetic")] == "1.2"
    assert table.loc["STaR", ("unreadable (%)", "arithmetic")] == ""
    assert list(table.loc["Base", "cost"]) == ["55,889", "0", "200", "12.3", "3.7"]
    assert list(table.loc["Debate", "cost"]) == ["1,234,567", "0", "1,200", "790", "3.7"]
    assert list(table.loc["Multiagent FT (ours)", "cost"]) == ["", "353,814", "1,200", "1,001", "120"]
    assert set(table.loc["STaR", "cost"]) == {""}
    markdown, latex, csv = (p.read_text() for p in tables.save_table(table, tmp_path / "table"))
    assert "| cost: training tokens" in markdown and "| 55,889 " in markdown and "('" not in markdown
    assert csv.splitlines()[0].startswith("method,accuracy (%): arithmetic,accuracy (%): mini_gsm,unr")
    assert "\\multicolumn{5}{c}{cost}" in latex and "accuracy (\\%)" in latex
    check_latex(latex)


def test_published_and_measured_stand_side_by_side(tmp_path):
    measured = pd.DataFrame(
        [("base", "gsm", 70.0, 2.0), ("star", "gsm", 80.0, 2.0), ("multiagent_ft", "gsm", 80.0, 2.0)],
        columns=ACCURACIES.columns,
    )
    llama = "meta-llama/Meta-Llama-3-8B-Instruct"
    table = tables.beside_published(measured, "table_1", llama)
    assert list(table.columns) == [("gsm", c) for c in ("measured", "published", tables.APART)]
    assert list(table.loc["Base"]) == ["70.0 ± 2.0", "75.00 ± 1.94", "-1.8"]  # -5 / 2.786
    assert list(table.loc["Multiagent FT (ours)"]) == ["80.0 ± 2.0", "88.60 ± 1.77", "-3.2"]
    assert list(table.loc["STaR"]) == ["80.0 ± 2.0", "", ""]
    assert list(table.loc["Debate"]) == [tables.NOT_RUN, "78.40 ± 1.44", ""]
    assert list(table.index)[0] == "Base" and list(table.index)[-1] == "Multiagent FT (ours)"
    other = tables.beside_published(measured, "table_1", "a/model")
    assert set(other["gsm", tables.APART]) == {""} and "models differ" in other.attrs["note"]
    elsewhere = tables.beside_published(measured.assign(task="arith"), "table_1", llama)
    assert set(elsewhere["arith", "published"]) == {""}
    _, latex, _ = (p.read_text() for p in tables.save_table(table, tmp_path / "table"))
    assert "$-$1.8" in latex
    check_latex(latex)


def test_the_published_table_is_that_of_the_same_model_if_there_is_one():
    measured = pd.DataFrame(
        [("debate", "gsm", 80.0, 1.0), ("debate", "mini_math", 55.0, 1.0)], columns=ACCURACIES.columns
    )
    llama = "meta-llama/Meta-Llama-3-8B-Instruct"
    same = tables.beside_published(measured, "table_1", llama, ["gsm"], ["debate"])
    assert list(same.loc["Debate"]) == ["80.0 ± 1.0", "78.40 ± 1.44", "+0.9"]
    harder = tables.beside_published(measured, "table_1", llama, ["mini_math"], ["debate"])
    assert list(harder.loc["Debate"])[2] == ""  # the same model on another task
    other = tables.beside_published(measured, "table_1", "a/model", ["mini_math"], ["debate"])
    assert list(other.loc["Debate"]) == ["55.0 ± 1.0", "53.40 ± 2.28", ""]  # MATH with Phi-3
    assert other.attrs["note"].endswith("Phi-3.")
    wider = {"mini_math": "math_all_levels"}
    levels = tables.beside_published(measured, "table_6", "a/model", ["mini_math"], ["debate"], wider)
    assert levels.loc["Debate", ("mini_math", "published")] == "29.80 ± 2.05"
    assert levels.attrs["note"].endswith("LLaMA-3.")


def test_tables_fit_for_a_paper(tmp_path):
    """Labels instead of ids and tuples, small p values as such, no row numbers, no empty columns."""
    rows = [("gsm", "multiagent_ft", "debate", 1e-9, np.nan), ("gsm", "star", "base", 0.0512, np.nan)]
    table = pd.DataFrame(rows, columns=["task", "method", "baseline", "p_holm", "std"])
    numbered = tables.save_table(table, tmp_path / "numbered")
    indexed = tables.save_table(table.set_index(["task", "method"]), tmp_path / "indexed")
    for markdown, latex, csv in ([p.read_text() for p in paths] for paths in (numbered, indexed)):
        first = "| gsm    | Multiagent FT (ours) | Debate     | < 0.001    |"
        assert markdown.splitlines()[2] == first and "0.051" in markdown and "std" not in markdown
        assert "\\textless{} 0.001" in latex and "p (Holm)" in latex
        assert csv.splitlines()[0] == "task,method,baseline,p (Holm)"
        check_latex(latex)
    assert tables.save_table(table.head(0), tmp_path / "empty") == []
    assert not list(tmp_path.glob("empty*"))


def test_cells_with_their_errors_keep_the_order_of_the_frame():
    frame = pd.DataFrame({"task": ["gsm", "gsm", "arithmetic"], "method": ["star", "base", "star"]})
    table = tables.with_errors(frame.assign(mean=[50.04, 7, 8], error=2.25), "task", "method", 1)
    assert list(table.columns) == ["STaR", "Base"] and list(table.index) == ["gsm", "arithmetic"]
    assert table.loc["gsm", "STaR"] == "50.0 ± 2.2" and pd.isna(table.loc["arithmetic", "Base"])
    percent = frame.assign(accuracy=1 / 3, standard_error=0.01)
    assert tables.with_errors(percent, "method", "task", 2).loc["base", "gsm"] == "0.33 ± 0.01"


def test_comparisons_are_said_in_words():
    found = {"difference": [-6.25, 3.0, 0.5], "low": [-9.0, 1.0, -4], "high": [-3.0, 5.0, 5]}
    named = {"task": "gsm", "method": ["multiagent_ft", "star", "debate"], "baseline": "base"}
    frame = pd.DataFrame({**named, **found, "p": [0.01, 0.01, 0.9], "significant": [True, True, False]})
    untold = pd.DataFrame([{"task": "gsm", "method": "base", "baseline": None, "p": np.nan}])
    assert tables.in_words(pd.concat([frame, untold])).splitlines() == [
        "On gsm, Multiagent FT (ours) is below Base: −6.2 points [−9.0, −3.0].",
        "On gsm, STaR is above Base: +3.0 points [1.0, 5.0].",
        "On gsm, Debate cannot be told from Base: +0.5 points [−4.0, 5.0].",
    ]
    shown = tables.comparisons(frame.assign(p_holm=0.0123, smallest=7.777), "method")
    assert list(shown.columns) == list(tables.COMPARED) and len(shown) == 3
    assert shown.loc["star", "smallest"] == 7.8 and shown.loc["star", "p_holm"] == 0.012


def test_accuracy_stands_beside_its_tokens():
    frame = pd.DataFrame({"method": ["debate", "multiagent_ft"], "tokens": [431.0, 433.0]})
    left, right = plots.accuracy_beside_tokens(frame.assign(accuracy=[60.0, 62.0], standard_error=2.0))
    assert [float(bars.lines[0].get_xdata()[0]) for bars in left.containers] == [60, 62]
    assert [bar.get_width() for bar in right.patches] == [431, 433]
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == ["Debate", "Multiagent FT (ours)"]


def test_columns_may_be_numbers(tmp_path):
    by_level = pd.DataFrame({1: [70.0], 2: [62.5]}, index=pd.Index(["Base"], name="method"))
    paths = tables.save_table(by_level, tmp_path / "levels")
    assert " & 1 & 2" in paths[1].read_text()


def test_numbers_are_still_written_as_numbers(tmp_path):
    table = pd.DataFrame({"right (%)": [47.7, 95.0], "n": [1, 20]}, index=["a", "b"])
    markdown, latex, csv = (p.read_text() for p in tables.save_table(table, tmp_path / "numbers"))
    assert markdown.splitlines()[2:] == ["| a  |        47.7 |   1 |", "| b  |        95   |  20 |"]
    assert "b & 95.0 & 20 " in latex
    assert csv.splitlines()[2] == "b,95.0,20"
    check_latex(latex)


SPECIAL = "a_b % & # $ ~ ^ \\ { } < > | ± †"


def test_special_characters_do_no_harm(tmp_path):
    table = pd.DataFrame(
        {SPECIAL: ["[x]", f"**{SPECIAL}** ± 1", "_1_ & 2", None], "n": [0.25, 2.0, np.nan, "-3"]},
        index=pd.Index(["[star]", SPECIAL, "_a_b", "*"], name=SPECIAL),
    )
    flat = tables.save_table(table, tmp_path / "flat")
    table.columns = pd.MultiIndex.from_tuples([(SPECIAL, SPECIAL), (SPECIAL, "n")])
    grouped = tables.save_table(table, tmp_path / "grouped")
    for markdown, latex, _ in ([p.read_text() for p in paths] for paths in (flat, grouped)):
        check_latex(latex)
        rows = [line for line in markdown.splitlines() if line]
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4} and len(rows) == 6
        assert "| 0.25 " in markdown and "nan" not in markdown and "None" not in markdown
    assert "\\textbf{a\\_b \\% \\& \\# \\$ \\textasciitilde{}" in latex


def check_latex(text):
    """That LaTeX would take a table: by running one where there is one, and by its structure."""
    body = re.sub(r"(?m)^%.*\n", "", text)
    assert re.fullmatch(r"\\begin\{tabular\}\{[lcr]+\}\n(?s:.*)\\end\{tabular\}\n", body)
    width = len(re.match(r"\\begin\{tabular\}\{([lcr]+)\}", body)[1])
    assert [body.count(f"\\{rule}rule\n") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
    bare = re.sub(r"\\[a-zA-Z]+|\\[&%$#_{}]", "", body.replace("\\\\", ""))
    assert not set("~^%#\\") & set(bare.replace("$^{}$", "")) and bare.count("$") % 2 == 0
    assert bare.isascii() and "<" not in bare and "|" not in bare
    depth = np.cumsum([(c == "{") - (c == "}") for c in bare])
    assert depth.min() >= 0 and depth[-1] == 0
    for row in re.findall(r"(?m)^(.*) \\\\$", body):
        assert not row.startswith(("[", "*"))
        spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", row)]
        assert len(re.findall(r"(?<!\\)&", row)) + 1 + sum(spans) - len(spans) == width
    compile_latex(text)


def compile_latex(text):
    program = shutil.which("pdflatex") or shutil.which("tectonic")
    if program is None:
        return
    document = (
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + text + "\\end{document}\n"
    )
    options = [] if program.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.tex")
        path.write_text(document, encoding="utf-8")
        done = subprocess.run([program, *options, path], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]


def test_figures_are_the_same_bytes_each_time(tmp_path):
    frame = pd.DataFrame(
        {
            "method": ["multiagent_ft"] * 3,
            "iteration": [0, 1, 2],
            "mean": [50, 60, 65],
            "error": [2, 2, 2],
        }
    )
    written = []
    for name in ("a", "b"):
        ax = plots.by_iteration(frame)
        paths = plots.save_figure(ax, tmp_path / name)
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1] and all(written[0])
    line = ax.get_lines()[0]
    assert list(line.get_ydata()) == [50, 60, 65]
    assert ax.get_legend_handles_labels()[1] == ["Multiagent FT (ours)"]


def test_the_overview_names_the_sizes_of_the_run():
    sizes = pd.DataFrame(
        {"generation": [11, 12], "critic": [8, 6], "corrected": [4, 3], "kept": [9, 8]}
    )
    texts = " ".join(text.get_text() for text in plots.overview(sizes, 20).texts)
    assert "20\nproblems" in texts and "11 right first answers" in texts
    assert (
        "generation agent 1\n11 right, 9 wrong" in texts
        and "critic agent 1\n13 right, 7 wrong" in texts
    )
    assert "8 from 4 corrected, 9 kept" in texts


LINES = pd.DataFrame(
    {
        "method": ["multiagent_ft"] * 3 + ["single_agent_ft"] * 3,
        "iteration": [0, 1, 2] * 2,
        "mean": [0.2, 0.3, 0.4, 0.2, 0.1, 0.1],
        "error": [0.01] * 6,
    }
)


def test_a_method_looks_the_same_in_every_figure():
    """Colour and marker by name, not by the order in which methods come; no two alike."""
    reverse = LINES.iloc[::-1]
    for frame in (LINES, reverse):
        handles, labels = plots.by_iteration(frame).get_legend_handles_labels()
        looks = {
            label: (h.lines[0].get_color(), h.lines[0].get_marker())
            for h, label in zip(handles, labels)
        }
        assert looks["Multiagent FT (ours)"] == ("#0072B2", "o")
        assert looks["Single-agent FT"] == ("#D55E00", "s")
    known = [(method.color, method.marker) for method in METHODS.values()]
    assert len(set(known)) == len(METHODS)


def test_figure_4_joins_and_numbers_the_iterations():
    frame = LINES.rename(columns={"mean": "diversity", "error": "diversity_error"})
    ax = plots.accuracy_against_diversity(frame.assign(accuracy=50.0, accuracy_error=2.0))
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2"] * 2
    joined = [list(line.get_xdata()) for line in ax.get_lines() if len(line.get_xdata()) == 3]
    assert joined == [[0.2, 0.3, 0.4], [0.2, 0.1, 0.1]]


def test_bars_have_their_errors_and_numbers():
    frame = pd.DataFrame(
        {"method": ["base", "multiagent_ft"], "accuracy": [50, 61.5], "standard_error": [5, 4]}
    )
    labels = ["Base", "Ours, trained on math"]
    ax = plots.accuracy_bars(frame.assign(label=labels, zero_shot=[False, True]))
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [False, True]
    assert [bar.get_width() for bar in ax.patches] == [50, 61.5]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Base", "Ours, trained on math"]
    assert "61.5" in [text.get_text() for text in ax.texts]
    segments = ax.containers[-1].errorbar.lines[2][0].get_segments()
    assert segments[1][:, 0].tolist() == [57.5, 65.5]


def test_the_transfer_matrix_names_both_tasks():
    matrix = pd.DataFrame([[50.0, 60.0], [70.0, 80.0]], index=["gsm", "math"], columns=["gsm", "math"])
    ax = plots.transfer_matrix(matrix, matrix / 10)
    assert [text.get_text() for text in ax.texts] == ["50 ± 5", "60 ± 6", "70 ± 7", "80 ± 8"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("tested on", "trained on")
    assert ax.images[0].get_array().tolist() == [[0, 0], [20, 20]]  # gains over the first row


def test_levels_and_one_legend_for_all_panels():
    figure, axes = plots.panels()
    for ax in axes:
        plots.by_iteration(LINES, ax, levels={"debate": 0.25})
    plots.legend_below(axes)
    plots.letter(axes, "of the debate")
    assert [ax.get_title(loc="left") for ax in axes] == ["(a) of the debate", "(b) "]
    assert [list(line.get_ydata()) for line in axes[0].lines[-1:]] == [[0.25, 0.25]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()].count("Debate") == 1
    assert all(ax.get_legend() is None for ax in axes)


def test_captions_are_kept_and_say_what_the_error_bars_are(tmp_path, capsys):
    config = load_config("smoke", seeds=[3, 4])
    caption = f"Figure 1: a line. {plots.about(config)}"
    _, png = plots.save_figure(plots.by_iteration(LINES), tmp_path / "fig01", caption)
    assert "one standard error of the mean over 2 seeds" in caption and "seeds 3, 4" in caption
    assert caption in capsys.readouterr().out and Image.open(png).text["Description"] == caption
    assert "over problems" in plots.about(load_config("smoke"))


def test_figures_have_the_widths_of_print():
    assert plots.by_iteration(LINES).figure.get_figwidth() == plots.SINGLE == 3.3
    assert plots.panels()[0].get_figwidth() == plots.DOUBLE == 6.9


def test_names_with_points_are_names_of_their_own(tmp_path):
    for name, value in (("temperature_0.5", 1), ("temperature_0.7", 2)):
        tables.save_table(pd.DataFrame({"a": [value]}), tmp_path / name)
        plots.save_figure(plt.figure(), tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 10
    assert "1" in (tmp_path / "temperature_0.5.csv").read_text()


def test_a_note_of_two_lines_stays_a_comment(tmp_path):
    table = pd.DataFrame({"a": [1]})
    table.attrs["note"] = "one\n\\input{two}"
    _, latex, _ = tables.save_table(table, tmp_path / "table")
    assert latex.read_text().splitlines()[0] == "% one \\input{two}"
