"""Tables and figures: the right cell is bold, files are written, figures are reproducible."""

import matplotlib
import pandas as pd

from maft_lib import plots, tables

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
        ax = plots.accuracy_by_iteration(frame)
        paths = plots.save_figure(ax, tmp_path / name)
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1] and all(written[0])
    (line,) = ax.get_lines()
    assert list(line.get_ydata()) == [50, 60, 65] and line.get_label() == "Multiagent FT (ours)"


def test_the_overview_names_the_sizes_of_the_run():
    counts = pd.DataFrame(
        {"generation": [11, 12], "critic": [8, 6], "corrected": [4, 3], "kept": [9, 8]}
    )
    ax = plots.overview(counts, "20 debates")
    texts = " ".join(text.get_text() for text in ax.texts)
    assert "20 debates" in texts and "11" in texts and "8 from 4 corrected, 9 kept" in texts
