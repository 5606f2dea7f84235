"""Records as HTML: what a reader finds, what foreign text cannot do, and what a formula becomes."""

import re
import subprocess
import sys
import time
from importlib import import_module
from types import SimpleNamespace

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter

from maft_lib import metrics
from maft_lib.config import Config
from maft_lib.debate import Debate, Turn
from maft_lib.grading import process
from maft_lib.grading.process import GradingError
from maft_lib.lab import RECORDS, html, page, register
from maft_lib.lab.debates import debate_html
from maft_lib.lab.page import LONGEST, formula_html, text_html
from maft_lib.lab.records import GROUPS
from maft_lib.profiles import load_config
from maft_lib.study import Result
from maft_lib.tasks.problem import Problem, problem_id
from tests.hostile_answers import HOSTILE, MARKUP

QUESTION = r"What is $\frac{1}{2} + \frac14$? A ticket costs $5 and $6."
NASTY = (
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "</details></td></tr></table></div><h1>out</h1>",
    "<b><i>never closed",
    "<style>*{display:none}</style>",
    "\"' onmouseover='alert(1)' x=\"",
    "<!-- and &lt;b&gt; &amp;",
)


def problem(task="math", answer=r"\frac{3}{4}", question=QUESTION):
    return Problem(problem_id(question), task, question, answer, 2, "Prealgebra")


def debate(rows, vote=None, response="{}", summary="what others said", **kwargs):
    """A debate with the answers `rows[agent][round]`."""
    turns = tuple(
        tuple(
            Turn("asked", summary if m else None, response.format(answer), answer)
            for m, answer in enumerate(row)
        )
        for row in rows
    )
    return Debate(problem(**kwargs), turns, vote)


def parsed(html):
    return BeautifulSoup(html, "html.parser")


def chips(html):
    """`right A`, `wrong B`, `none` of every cell, a list per round."""
    rows = parsed(html).select(".maft-rounds > tbody > tr")
    return [
        [_chip(cell.select_one(".maft-chip")) for cell in row.select(":scope > td")] for row in rows
    ]


def _chip(found):
    if found is None:
        return "waiting"
    kind = next(c for c in found["class"] if c != "maft-chip").removeprefix("maft-")
    group = found.select_one(".maft-group")
    return f"{kind} {group.get_text().split()[-1]}" if group else kind


def changes(html):
    return [found.get_text() for found in parsed(html).select(".maft-change")]


def verdict(html):
    rows = parsed(html).select(".maft-verdict > div")
    return {row.dt.get_text(): row.dd for row in rows}


# --- registration --------------------------------------------------------------------------------


def test_thoughts_are_folded_and_cut_responses_are_marked():
    cut = Turn("asked", None, "So far 12", None, reasoning="<b>Hm</b>", finish_reason="length")
    record = Debate(problem(), ((cut,), (Turn("asked", None, "It is 3/4.", "3/4"),)), "3/4", 9, 9, 2, 1)
    shown = parsed(debate_html(record))
    assert [fold.get_text() for fold in shown.select(".maft-rounds details")] == ["Thoughts<b>Hm</b>"]
    assert changes(str(shown)) == ["cut at the token limit"]
    assert "1 response cut" in shown.select_one(".maft-verdict").get_text()


def test_ipython_shows_our_records_once_they_are_registered():
    shell = SimpleNamespace(display_formatter=DisplayFormatter(), set_custom_exc=lambda *_: None)
    register(shell)
    assert shell.display_formatter.formatters["text/html"](problem()) == html(problem())
    for name, module in RECORDS.items():
        assert getattr(import_module(module), name).__module__ == module


def test_importing_the_package_in_a_kernel_registers_and_imports_nothing_else():
    code = """if True:
        import sys
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        import maft_lib
        ours = {name for name in sys.modules if name.startswith("maft_lib")}
        assert ours == {"maft_lib", "maft_lib.lab", "maft_lib.events"}
        assert "torch" not in sys.modules and "pandas" not in sys.modules
        from maft_lib import Problem
        show = shell.display_formatter.formatters["text/html"]
        assert "maft-problem" in show(Problem("id", "math", "What?", "2"))
    """
    subprocess.run([sys.executable, "-c", code], check=True)


# --- debates -------------------------------------------------------------------------------------


def test_a_debate_has_a_row_per_round_and_a_column_per_agent():
    shown = parsed(html(debate([["1", "3/4"], ["3/4", "3/4"], ["2", "2"]], "3/4")))
    table = shown.select_one(".maft-rounds")
    assert [th.get_text() for th in table.select('thead th[scope="col"]')] == [
        f"agent {n}" for n in (1, 2, 3)
    ]
    heads = [th.get_text() for th in table.select('tbody th[scope="row"]')]
    assert heads == ["round 1 generation agents", "round 2 critics"]
    assert table.caption.get_text() == "3 agents, 2 rounds"
    assert [len(row.select("td")) for row in table.select("tbody tr")] == [3, 3]
    assert "math · level 2 · Prealgebra" in shown.select_one(".maft-meta").get_text()


def test_equivalent_answers_share_a_letter_and_are_judged():
    shown = html(debate([["1", r"\frac34"], ["0.75", r"\dfrac{6}{8}"], ["2", "1.0"]], "0.75"))
    assert chips(shown) == [["wrong A", "right B", "wrong C"], ["right B", "right B", "wrong A"]]
    first = parsed(shown).select_one(".maft-wrong")
    assert first.get_text().split() == ["✗", "wrong:", "1", "group", "A"]  # not by colour alone
    assert first.b["aria-hidden"] == "true"


def test_what_changed_between_rounds_is_said():
    rows = [
        ["1", "3/4"],
        ["3/4", "1"],
        ["1", "2"],
        ["3/4", "0.75"],
        [None, "3/4"],
        ["1", None],
        ["2", "2"],
    ]
    assert changes(html(debate(rows))) == [
        "wrong → right",
        "right → wrong",
        "new answer, still wrong",
        "no answer → right",
        "lost its answer",
    ]


def test_the_vote_its_count_and_the_ground_truth():
    found = verdict(html(debate([["1", "3/4"], ["1", "0.75"], ["2", "2"]], "3/4")))
    assert _chip(found["vote"].select_one(".maft-chip")) == "right C"
    assert "2 of 3 agents" in found["vote"].get_text()
    assert found["ground truth"].select_one(".maft-chip")["title"] == r"\frac{3}{4}"


def test_a_tie_says_that_it_was_one():
    said = verdict(html(debate([["1"], ["2"], ["1"], ["2"], ["7"]], "2")))["vote"].get_text()
    assert "two-way tie (A, B), drawn at random" in said
    rows = [["1", "1"], ["2", "5"], ["3", "7"]]
    assert "three-way tie (A, D, E), drawn at random" in html(debate(rows, "5"))


def test_nothing_readable():
    found = html(debate([[None, None], [None, None]], response="I do not know"))
    assert chips(found) == [["none", "none"]] * 2 and changes(found) == []
    assert "no answer could be read" in verdict(found)["vote"].get_text()


@pytest.mark.parametrize("num_agents", [1, 2, 6, 30])
def test_any_number_of_agents(num_agents):
    rows = [[str(n)] for n in range(num_agents)]
    shown = html(debate(rows, "0", task="arithmetic", answer="0"))
    kinds, letters = zip(*(chip.split() for chip in chips(shown)[0]))
    assert kinds == ("right", *["wrong"] * (num_agents - 1))
    assert letters == tuple([*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "AA", "AB", "AC", "AD"][:num_agents])


def test_the_summary_is_folded_and_whole():
    shown = parsed(html(debate([["1", "3/4"], ["1", "1"]], summary=r"They say $\frac{3}{4}$.")))
    folds = shown.select("details")
    assert len(folds) == 2 and not folds[0].has_attr("open")
    assert folds[0].select_one("mfrac") and "They say" in folds[0].get_text()


def test_a_number_means_one_agent_in_every_summary():
    """Prompts number the others from 1; a reader sees each agent's own number."""
    summary = "Agent 1 answers 7. Agents 1 and 2 differ; agent 2 has 3+1=4, and 9 agents are not here."
    shown = parsed(html(debate([["1", "1"]] * 3, summary=summary)))
    read = [fold.select_one(".maft-text").get_text() for fold in shown.select("details")]
    assert read == [
        "Agent 2 answers 7. Agents 2 and 3 differ; agent 3 has 3+1=4, and 9 agents are not here.",
        "Agent 1 answers 7. Agents 1 and 3 differ; agent 3 has 3+1=4, and 9 agents are not here.",
        summary,
    ]


def test_a_debate_in_progress():
    begun = debate([["3/4", None], ["1"], []], response="so far")
    shown = debate_html(begun, finished=False)
    assert chips(shown) == [["right A", "wrong B", "waiting"], ["none", "waiting", "waiting"]]
    assert "no answer yet" in shown and "vote" not in verdict(shown) and changes(shown) == []
    assert debate_html(Debate(problem(), (), None), finished=False).count("<tr>") == 0
    assert "vote" in verdict(debate_html(begun))  # whoever says that it is finished gets a vote


def test_a_problem_without_a_ground_truth_is_not_judged():
    shown = html(debate([["1", "2"], ["1", "1"]], "1", answer=""))
    assert chips(shown) == [["plain A", "plain A"], ["plain B", "plain A"]]
    assert changes(shown) == ["new answer"] and "ground truth" not in verdict(shown)


def test_an_unknown_task_and_a_broken_grader_raise_nothing(monkeypatch):
    assert chips(html(debate([["1"], ["1"], ["2"]], "1", task="mine"))) == [
        ["plain A", "plain A", "plain B"]
    ]

    def broken(*asked):
        raise GradingError("math-verify cannot be started.")

    monkeypatch.setattr(process, "_answer", broken)
    asked = debate([["u+v^7"], ["7v+u-6v"]], "u+v^7", answer="v^7 + u")
    assert chips(html(asked)) == [["plain A", "plain B"]]


def test_number_answers_are_not_read_as_formulas():
    shown = parsed(html(debate([["a_b"]], "a_b", task="reasoning_gym:spell_backward", answer="b_a")))
    assert shown.select_one(".maft-rounds .maft-chip math") is None


# --- foreign text --------------------------------------------------------------------------------


SHELL = {"div", "style", "table", "caption", "thead", "tbody", "tr", "td", "th", "small", "details"}
SHELL |= {"summary", "dl", "dt", "dd", "b", "span", "br", "code"}
MATHML = {"math", "mi", "mn", "mo", "mrow", "mtext", "mspace", "mstyle", "mpadded", "mphantom"}
MATHML |= {"menclose", "mtr", "mtd", "mtable", "mfrac", "msup", "msub", "msubsup", "msqrt", "mroot"}
MATHML |= {"munder", "mover", "munderover"}


def is_harmless(found):
    """Only the page's own elements, MathML in formulas alone, and no attribute that does anything."""
    outside = {
        tag.name for tag in found.find_all(True) if tag.name != "math" and not tag.find_parent("math")
    }
    inside = {tag.name for tag in found.select("math, math *")}
    names = {name for tag in found.find_all(True) for name in tag.attrs}
    active = {
        name for name in names if name.startswith("on") or name in ("src", "href", "id", "xlink:href")
    }
    return outside <= SHELL and inside <= MATHML and not active


@pytest.mark.parametrize("nasty", [*NASTY, *MARKUP.values()], ids=range(len(NASTY) + len(MARKUP)))
def test_what_models_write_stays_text(nasty):
    turn = Turn("asked", nasty, nasty, nasty)
    shown = html(Debate(problem(question=nasty, answer=nasty), ((turn, turn),), nasty))
    found = parsed(shown)
    assert is_harmless(found) and len(found.select("style")) == 1 and len(found.select(".maft")) == 1
    assert [child.name for child in found.find_all(recursive=False)] == ["div"]  # nothing broke out
    assert len(found.select(".maft-rounds > tbody > tr > td")) == 2


def test_hostile_answers_are_shown_in_time():
    for name, whole in HOSTILE.items():
        nasty = whole[:100_000]
        start = time.perf_counter()
        shown = text_html(nasty) + formula_html(nasty) + text_html(f"${nasty}$ \\[{nasty}\\]")
        assert time.perf_counter() - start < 5, name  # on a busy machine
        assert shown.encode("utf-8") and (len(shown) > 20_000 or is_harmless(parsed(shown))), name


@pytest.mark.parametrize("nasty", NASTY)
def test_what_models_write_is_shown_as_written(nasty):
    shown = parsed(html(debate([["1"]], response=nasty.replace("{", "{{").replace("}", "}}"))))
    assert shown.select_one(".maft-response").get_text() == nasty


def test_characters_that_html_cannot_hold():
    shown = page.escaped("a\x00b\x1b[31m \ud800 \ud83d\ude00")
    assert shown == "a�b�[31m � 😀" and shown.encode("utf-8")


def test_names_of_models_are_escaped():
    config = Config(model_name_or_path="<script>x</script>")
    assert parsed(html(config)).script is None


def test_the_frame_keeps_style_and_mathjax_to_itself():
    root = parsed(html(debate([["1"]]))).div
    assert {"maft", "tex2jax_ignore", "mathjax_ignore"} <= set(root["class"])
    style = re.sub(r"/\*.*?\*/", "", page.STYLE, flags=re.S).strip()
    assert len(page.STYLE) < 6000 and style.startswith(".maft.maft.maft {")
    depths = [style[: i + 1].count("{") - style[: i + 1].count("}") for i in range(len(style))]
    assert depths[-1] == 0 and style.endswith("}")
    assert min(depths[style.index("{") : -1]) >= 1  # every rule is nested in the root's


# --- mathematics ---------------------------------------------------------------------------------


def tags(html):
    return [tag.name for tag in parsed(html).select("math *:not(mrow)")]


def read(html):
    """What is read where formulas are seen."""
    shown = parsed(html)
    for source in shown.select(".maft-tex"):
        source.decompose()
    return shown.get_text()


@pytest.mark.parametrize(
    "text, wanted",
    [
        (r"$\frac{1}{2}$", ["mfrac", "mn", "mn"]),
        (r"\(x^2\)", ["msup", "mi", "mn"]),
        (r"\boxed{\dfrac{3}{4}}", ["menclose", "mstyle", "mfrac", "mn", "mn"]),
        (r"\boxed{no solution}", ["menclose", "mtext"]),
        (r"\boxed{$x$}", ["menclose", "mi"]),
        (r"$90^\circ$", ["msup", "mn", "mo"]),
    ],
)
def test_formulas_become_mathml(text, wanted):
    assert tags(text_html(f"so {text}, and")) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "$$x=1$$",
        r"\[x=1\]",
        r"\begin{align*}x&=1\\y&=2\end{align*}",
        r"\begin{equation}x\end{equation}",
    ],
)
def test_displayed_formulas_stand_alone(text):
    shown = text_html(f"so\n{text}\nand")
    assert parsed(shown).math["display"] == "block"
    assert re.sub("<br></code>", "</code>", shown).count("<br>") == 1  # no empty line behind it


@pytest.mark.parametrize(
    "text",
    [
        "a ticket costs $5 and $6",
        "it costs $5, she has 3$",
        "$18-$3=$15 and $ 20 $ more",
        "$5\n\n7$",
        "$",
        "$$",
        "$$$$",
        r"\(never closed",
        r"\boxed{never closed",
        r"$\frac{1}{$",
        r"$\nosuchcommand{x}$",
        r"$\def\a{\a\a}\a$",
        r"$\newcommand{\a}{b}\a$",
        r"\begin{align*} x",
        "$" + "x" * LONGEST + "1$",
    ],
)
def test_what_is_no_formula_stays_as_it_was_written(text):
    shown = parsed(text_html(text))
    assert shown.math is None
    assert "".join(shown.strings) == re.sub(r"\n", "", text)


def test_an_escaped_dollar_is_a_dollar():
    assert read(text_html(r"\$5 and $\$6$")) == "$5 and $6"


def test_money_beside_formulas():
    shown = text_html("$5 buys $x$ apples, $7.50 buys $x+1$.")
    assert [math.get_text() for math in parsed(shown).select("math")] == ["x", "x+1"]
    assert read(shown) == "$5 buys x apples, $7.50 buys x+1."


@pytest.mark.parametrize(
    "latex",
    [
        r"\text{<script>alert(1)</script>}",
        r"\text{&lt;script&gt;}",
        r"\text{&#x3c;script&#x3e;}",
        r"\unicode{x3c}script\unicode{x3e}",
        r"\mbox{<img src=x onerror=alert(1)>}",
        r"\operatorname{<b>}",
        r"\href{javascript:alert(1)}{x}",
        r"\style{position:fixed;inset:0}{x}",
        r"\class{maft}{x}",
        r"\color{red;background:url(//x)}x",
        r"\verb|<b>|",
        r"\hspace{99999em}x\rule{9999em}{9999em}",
        r"\raise{-99em}{x}\kern{-50em}",
    ],
)
def test_mathml_carries_nothing_but_mathematics(latex):
    for shown in (formula_html(latex), text_html(f"${latex}$")):
        found = parsed(shown)
        assert {tag.name for tag in found.find_all(True)} <= {"span", "code", *MATHML}
        kept = {k: v for tag in found.select("math *") for k, v in tag.attrs.items()}
        assert not kept.keys() & {"href", "style", "class", "mathcolor", "mathbackground"}
        sizes = [value for name, value in kept.items() if name in ("width", "height", "voffset")]
        assert not re.search(r"\d\d", str(sizes))


def test_text_in_a_formula_is_escaped_once():
    assert parsed(text_html(r"$\text{a < b \& c}$")).math.get_text() == "a\u00a0<\u00a0b\u00a0&\u00a0c"


@pytest.mark.parametrize(
    "text",
    [
        "$" + "{" * 900 + "}" * 900 + "$",
        "$" + r"\sqrt" * 350 + "2$",
        "$" + r"\frac{" * 300 + "1" + "}{2}" * 300 + "$",
        "$" + r"\left(" * 250 + r"\right)" * 250 + "$",
        "$" * 20_000,
        r"\boxed{" * 5_000,
        r"\(" * 20_000,
        r"\begin{align*}" * 3_000,
        "$x" * 10_000,
        "$x$" * 10_000,
        "$" + "x^{" * 400 + "}" * 400 + "$",
        "$5 " * 10_000,
        r"$\operatorname{" + " " * 1_900 + "$",
        "$" + "1 " * 900 + "$",
    ],
    ids=range(14),
)
def test_hostile_formulas_neither_raise_nor_hang(text):
    start = time.perf_counter()
    text_html(text)
    assert time.perf_counter() - start < 5


def test_without_stylesheet_and_mathml_the_source_is_read():
    """JupyterLab takes <style> and MathML out of a notebook not trusted, but leaves `hidden`."""
    text = r"half is $\frac{1}{2}$, and $x+1$ is linear"
    shown = parsed(text_html(text))
    for hidden in shown.select("[hidden]"):
        hidden.decompose()
    assert shown.get_text() == text


def test_line_breaks_and_spaces_stay():
    assert text_html("a\n  b\r\n\nc\n") == "a<br>  b<br><br>c"


# --- size and speed ------------------------------------------------------------------------------

PARAGRAPH = r"""We want the sum of all $x$ such that $x^2 - 5x + 6 = 0$. Factoring gives
$(x-2)(x-3) = 0$, so that $x = 2$ or $x = 3$, and by Vieta's formulas the sum is $\frac{5}{1} = 5$. To
check this we complete the square, which gives \[ \left(x - \frac{5}{2}\right)^2 = \frac{1}{4}, \] so
$x = \frac{5 \pm 1}{2}$. The discriminant is $b^2 - 4ac = 25 - 24 = 1$, which is positive, so both of
these solutions are real.
"""


def test_a_debate_with_much_mathematics_stays_small():
    response = PARAGRAPH * 4 + r"The answer is \boxed{5}."
    assert 300 < len(response.split()) < 350
    turns = (Turn("asked", None, response, "5"), Turn("asked", PARAGRAPH * 2, response, "5"))
    shown = html(Debate(problem(answer="5"), (turns,) * 3, "5"))
    assert len(shown.encode()) < 100_000


def test_a_debate_of_long_plain_responses_stays_small():
    response = "every one of these words is about one token long " * 205  # 2,050 words
    turns = (Turn("asked", None, response, "5"), Turn("asked", response[:2000], response, "5"))
    shown = html(Debate(problem(answer="5"), (turns,) * 3, "5"))
    assert len(shown.encode()) < 100_000
    assert all(
        cell["tabindex"] == "0" and cell["aria-label"]
        for cell in parsed(shown).select(".maft-response")
    )
    assert response.strip() in parsed(shown).select_one(".maft-response").get_text()


def test_a_debate_is_shown_in_milliseconds():
    response = PARAGRAPH * 4
    turns = tuple(Turn("asked", PARAGRAPH, response, "5") for _ in range(2))
    shown = Debate(problem(answer="5"), (turns,) * 3, "5")
    html(shown)
    start = time.perf_counter()
    html(shown)
    assert time.perf_counter() - start < 0.1  # a slow machine's; here it is a tenth of that


# --- other records -------------------------------------------------------------------------------


def test_a_problem_folds_its_answer():
    shown = parsed(html(problem()))
    assert (
        shown.select_one(".maft-question mfrac") and problem().id in shown.select_one(".maft-meta").text
    )
    assert shown.details.select_one(".maft-chip")["title"] == r"\frac{3}{4}"
    bare = html(Problem("id", "arithmetic", "1+1?", "2"))
    assert "None" not in bare and "level" not in parsed(bare).select_one(".maft-meta").text


@pytest.fixture
def result(config):
    first = [debate([["1"], ["3/4"], ["3/4"]], "3/4"), debate([["1"]], "1", question="Other?")]
    run = {"method": "multiagent_ft", "task": "math", "model": "m", "seed": 0}
    frame = metrics.scores(first).assign(iteration=1, **run)
    costs = metrics.cost_frame(
        [
            {"iteration": 1, "phase": "training", "agent": a, "num_training_tokens": 500}
            for a in ("a", "b")
        ]
    )
    return Result(
        "multiagent_ft", "math", frame, costs=costs, config=config, note="<b>from the test split"
    )


def test_a_result_shows_accuracy_costs_and_config(result):
    shown = parsed(html(result))
    accuracy, costs, *_ = shown.select("table")
    cells = [cell.get_text() for cell in accuracy.select("tbody tr > *")]
    assert cells == ["1", "50.0 ± 35.4", "33.3", "33.3", "0.0", "2"]
    assert [cell.get_text() for cell in costs.select("tbody tr > *")][-2] == "1,000"
    assert [fold.summary.get_text() for fold in shown.select("details")] == [
        *("costs", "config", "all parameters")
    ]
    assert "<b>from" in shown.get_text()


def test_an_empty_result_says_so():
    assert "nothing has been evaluated" in html(Result("debate", "math", pd.DataFrame()))


def test_a_config_shows_what_differs_from_the_defaults_and_folds_the_rest():
    config, defaults = load_config("smoke", num_agents=5), Config()
    shown = parsed(html(config))
    folded = shown.details.extract()
    differing = {row.dt.get_text(): row.dd.get_text() for row in shown.select("dl > div")}
    expected = [n for n in Config.model_fields if getattr(config, n) != getattr(defaults, n)]
    assert list(differing) == expected and differing["num_agents"] == "5 default 3"
    rows = {row.dt.get_text(): row.dd.get_text() for row in folded.select("dl > div")}
    assert list(rows) == list(Config.model_fields) and rows["num_rounds"] == "2"
    titles = [title.get_text() for title in folded.select("h4")]
    assert titles == ["Profile", *GROUPS.values()] and set(GROUPS) <= set(Config.model_fields)


def test_markup_is_closed_and_nothing_stands_where_html_forbids_it(result):
    for shown in map(html, (debate([["1", "3/4"]], "3/4"), result, problem())):
        for name in (
            "div",
            "span",
            "table",
            "tr",
            "td",
            "th",
            "details",
            "summary",
            "dl",
            "code",
            "math",
            "p",
        ):
            opened = shown.count(f"<{name}>") + shown.count(f"<{name} ")
            assert opened == shown.count(f"</{name}>"), name
        assert not parsed(shown).select("p div, p details, p table, span div, summary div")
        assert all(fold.contents[0].name == "summary" for fold in parsed(shown).select("details"))
