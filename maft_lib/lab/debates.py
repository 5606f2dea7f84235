"""A debate as HTML: who answered what in which round, what changed, the vote. Knows no models.

Answers that are mathematically equivalent carry the same letter. Each is judged against the ground
truth; where a problem has none, nothing is called right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from maft_lib.debate import Debate, Turn
from maft_lib.grading import group_equivalent, is_correct
from maft_lib.grading.process import GradingError
from maft_lib.lab.mathematics import text_html
from maft_lib.lab.page import badge, chip, facts, fold, framed, letter
from maft_lib.lab.records import answer_html, question_html
from maft_lib.tasks.problem import Problem

LONG = 900  # characters of a response that may need to be scrolled
_LEFT = 'style="text-align:left;vertical-align:top"'  # where the stylesheet is missing
_NAMES = {"right": "right", "wrong": "wrong", "none": "no answer", "plain": "an answer"}


def debate_html(debate: Debate, rounds: int | None = None, finished: bool = True) -> str:
    """One debate as an output of a notebook: its first `rounds` rounds (None: all), and the vote.

    `finished=False` is for a debate in progress: agents may have different numbers of turns, the last
    answer of each may still be missing, and there is no vote. Raises nothing, whatever models wrote.
    """
    return framed(debate_body(debate, rounds, finished), "maft-debate")


def debate_body(debate: Debate, rounds: int | None = None, finished: bool = True) -> str:
    """`debate_html` without the frame and its stylesheet."""
    page = _Page(debate, finished)
    shown = page.num_rounds if rounds is None else min(max(rounds, 0), page.num_rounds)
    return question_html(debate.problem) + page.table(shown) + page.verdict(shown)


@dataclass(frozen=True)
class _Answers:
    """All final answers of a debate: of which group each is, and of what kind."""

    problem: Problem
    groups: dict[str, int]

    def kind(self, answer: str | None) -> str:
        """`right`, `wrong`, `none`, or `plain` where that cannot be said."""
        if answer is None:
            return "none"
        if not _has_truth(self.problem):
            return "plain"
        try:
            return "right" if is_correct(answer, self.problem) else "wrong"
        except (GradingError, ValueError):  # nothing to compare with can be started; unknown task
            return "plain"

    def chip(self, answer: str | None, missing: str = "no answer") -> str:
        """An answer with its mark and the letter of its group."""
        if answer is None:
            return chip(missing, "none")
        group = f" {badge(self.groups[answer])}" if answer in self.groups else ""
        return chip(answer, self.kind(answer), answer_html(answer, self.problem.task) + group)

    def change(self, before: str | None, after: str | None) -> str:
        """How an answer differs from the one of the round before, in words; empty if it does not."""
        old, new = self.kind(before), self.kind(after)
        if old != new:
            tone = " maft-fixed" if new == "right" else " maft-broke" if old == "right" else ""
            return f'<span class="maft-change{tone}">{_NAMES[old]} → {_NAMES[new]}</span>'
        if before is None or after is None or self._same(before, after):
            return ""
        still = ", still wrong" if new == "wrong" else ""
        return f'<span class="maft-change">changed{still}</span>'

    def _same(self, a: str, b: str) -> bool:
        return a == b or (a in self.groups and self.groups[a] == self.groups.get(b))


class _Page:
    """The parts of one debate's page."""

    def __init__(self, debate: Debate, finished: bool):
        self.debate, self.finished = debate, finished
        self.num_rounds = max((len(turns) for turns in debate.turns), default=0)
        self.answers = _Answers(debate.problem, _grouped(debate))

    def table(self, shown: int) -> str:
        """A row per round, a column per agent."""
        if not shown:
            return ""
        agents = range(1, len(self.debate.turns) + 1)
        heads = "".join(f'<th scope="col">agent {n}</th>' for n in agents)
        rows = "".join(self._row(number) for number in range(shown))
        caption = f"<caption>{_number(len(agents), 'agent')}, {_number(shown, 'round')}</caption>"
        head = f"<thead><tr><td></td>{heads}</tr></thead>"
        columns = f'style="--agents:{len(agents)}"'
        return f'<table class="maft-rounds" {columns}>{caption}{head}<tbody>{rows}</tbody></table>'

    def _row(self, number: int) -> str:
        role = "critics" if number else "generation agents"
        head = f'<th scope="row">round {number + 1} <small>{role}</small></th>'
        cells = (self._cell(n, number) for n in range(len(self.debate.turns)))
        return f"<tr>{head}{''.join(cells)}</tr>"

    def _cell(self, agent: int, number: int) -> str:
        turns, name = self.debate.turns[agent], f"agent {agent + 1}"
        if number >= len(turns):
            return f'<td {_LEFT} data-agent="{name}" class="maft-waiting">waiting</td>'
        turn = turns[number]
        writing = not self.finished and number == len(turns) - 1
        answer = self.answers.chip(turn.answer, "no answer yet" if writing else "no answer")
        if number and not (writing and turn.answer is None):
            answer += " " + self.answers.change(turns[number - 1].answer, turn.answer)
        said = _scrolled(turn.response, f"response of {name} in round {number + 1}")
        answer = f'<div class="maft-answer">{answer.strip()}</div>'
        summary = _summary(turn, writing and not turn.response)
        return f'<td {_LEFT} data-agent="{name}">{answer}{summary}{said}</td>'

    def verdict(self, shown: int) -> str:
        """The vote, once all rounds are shown, the ground truth, and what the debate cost."""
        debate, truth = self.debate, self.debate.problem.answer
        pairs: list[tuple[object, str]] = []
        if self.finished and shown == self.num_rounds > 0:
            chosen = self.answers.chip(debate.vote, "no answer could be read")
            pairs.append(("vote", f"{chosen} <small>{_count(debate, self.answers.groups)}</small>"))
        if truth.strip():
            shown_truth = answer_html(truth, debate.problem.task)
            pairs.append(("ground truth", chip(truth, "plain", shown_truth)))
        if debate.num_calls:
            read, written = f"{debate.num_prompt_tokens:,}", f"{debate.num_completion_tokens:,}"
            spent = f"{debate.num_calls:,} requests, {read} tokens read, {written} written"
            pairs.append(("cost", f"<small>{spent}</small>"))
        return facts(pairs, "maft-verdict") if pairs else ""


def _has_truth(problem: Problem) -> bool:
    return bool(problem.answer.strip()) or problem.scoring is not None


def _grouped(debate: Debate) -> dict[str, int]:
    """The group of each answer that was given, numbered in the order of appearance, round by round."""
    by_round = zip_longest(*debate.answers)
    given = dict.fromkeys(a for answers in by_round for a in answers if a is not None)
    answers = list(given)  # equal answers are compared once
    groups = sorted(_groups(answers, debate.problem.task))
    return {answers[i]: number for number, group in enumerate(groups) for i in group}


def _groups(answers: Sequence[str | None], task: str) -> list[list[int]]:
    """Places of equivalent answers; of equal ones where nothing to compare with can be started."""
    try:
        return group_equivalent(answers, task)
    except (GradingError, ValueError):
        given = dict.fromkeys(answer for answer in answers if answer is not None)
        return [[i for i, other in enumerate(answers) if other == answer] for answer in given]


def _count(debate: Debate, numbers: dict[str, int]) -> str:
    """How the vote over the last round went, in words."""
    last = [turns[-1].answer if turns else None for turns in debate.turns]
    groups = _groups(last, debate.problem.task)
    most = max(map(len, groups), default=0)
    firsts = [last[group[0]] for group in groups if len(group) == most]
    tied = sorted(numbers[answer] for answer in firsts if answer in numbers)
    if len(tied) > 1:
        names = " and ".join(map(letter, tied))
        return f"a tie of {names} with {most} of {_number(len(last), 'agent')} each, broken at random"
    return f"{most} of {_number(len(last), 'agent')}" if most else ""


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _summary(turn: Turn, opened: bool) -> str:
    if turn.summary is None:
        return ""
    body = f'<div class="maft-text">{text_html(turn.summary)}</div>'
    return fold("summary that it read", body, opened)


def _scrolled(text: str, name: str) -> str:
    """A response, whole; a long one in a region that keys can scroll."""
    reach = f' tabindex="0" role="region" aria-label="{name}"' if len(text) > LONG else ""
    return f'<div class="maft-text maft-response"{reach}>{text_html(text)}</div>'
