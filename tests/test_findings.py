"""docs/findings.md and figures/organism are what the committed frames say."""

import re

import pandas as pd
import pytest

from benchmarks import findings
from maft_lib.methods import METHODS

pytestmark = pytest.mark.skipif(
    not (findings.FIGURES / "frames.csv.gz").is_file(), reason="no study of the organism is committed"
)


def test_the_page_and_figure_1_are_drawn_from_the_frames(tmp_path, monkeypatch):
    page = tmp_path / "findings.md"
    page.write_text(findings.PAGE.read_text())
    for name in ("frames.csv.gz", "iterations.csv", "held_out_frames.csv.gz"):
        (tmp_path / name).write_bytes((findings.FIGURES / name).read_bytes())
    committed = findings.FIGURES / "fig01.csv"
    monkeypatch.setattr(findings, "FIGURES", tmp_path)
    monkeypatch.setattr(findings, "PAGE", page)
    findings.draw()
    root = findings.ROOT / "docs" / "findings.md"
    assert page.read_text() == root.read_text()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "fig01.csv"), pd.read_csv(committed))


def test_all_arms_are_methods_and_have_the_same_problems():
    assert {method for _, method, _ in findings.ARMS.values()} <= set(METHODS)
    frames = findings.read()
    tier = frames[frames.arm.map(lambda arm: findings.ARMS[arm][0] == "a")]
    asked = tier.groupby(["arm", "iteration"]).apply(lambda own: frozenset(zip(own.seed, own.problem)))
    assert asked.nunique() == 1 and tier.arm.nunique() == 4
    base = tier[tier.iteration == 0].groupby("arm").correct.mean()
    assert base.nunique() == 1  # all arms start from the same debates


def test_readme_says_what_the_tables_say():
    """Its Table 1 is the committed one, and its three means are the findings'."""
    readme = (findings.ROOT / "README.md").read_text()

    def cells(line):
        return [cell.strip() for cell in line.strip("|").split("|")]

    table = (findings.FIGURES / "table01.md").read_text()
    rows = [cells(line)[:4] for line in table.splitlines() if line.startswith("|")][2:]
    assert [row for row in map(cells, readme.splitlines()) if row in rows] == rows
    last = (
        pd.read_csv(findings.FIGURES / "fig01.csv").query("iteration == 1").set_index("method")["mean"]
    )
    for name, words in {
        "multiagent_ft": "76.8 %",
        "single_agent_ft": "77.6 % and one model",
        "pooled_first_responses": "78.8 %; all",
    }.items():
        assert words in " ".join(readme.split()) and float(words.split()[0]) == round(last[name], 1)
    supported = (findings.findings(findings.read()).verdict == "supported").sum()
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
    assert f"{words[supported]} claims are supported" in " ".join(readme.split())


def test_the_page_on_diversity_says_what_its_tables_say():
    page = (findings.ROOT / "docs/diversity.md").read_text()
    figure_3 = pd.read_csv(findings.ROOT / "figures/showcase/fig03.csv")
    named = figure_3.set_index(["measure", "method", "iteration"]).sort_index()
    for measure, method, iteration in (
        ("embedding dissimilarity", "multiagent_ft", 0),
        ("embedding dissimilarity", "multiagent_ft", 5),
        ("embedding dissimilarity", "single_agent_ft", 5),
        ("NLL per token", "multiagent_ft", 0),
        ("NLL per token", "multiagent_ft", 5),
        ("NLL per token", "single_agent_ft", 5),
    ):
        row = named.loc[(measure, method, iteration)]
        assert f"{row['mean']:.3f} ± {row.error:.3f}" in page
    row = named.loc[("KL between agents, per response", "multiagent_ft", 5)]
    assert f"{row['mean']:.2f} ± {row.error:.2f}" in page


def test_the_prose_says_what_the_tables_say():
    """Every percentage before the tables is an arm's mean over all its seeds or the first three."""
    prose, means = findings.PAGE.read_text().split("<!-- table -->")[0], set()
    for prefix in ("", "held_out_"):
        columns = pd.read_csv(findings.FIGURES / f"{prefix}iterations.csv")
        for part in (columns, columns[columns.seed <= 2]):
            own = part.groupby(["arm", "iteration"])[["accuracy", "first_answers", "labels_right"]]
            means |= {f"{mean:.1f}" for mean in own.mean().to_numpy().ravel()}
    said = set(re.findall(r"\b(\d\d\.\d) %", prose))
    assert len(said) > 10 and said <= means
