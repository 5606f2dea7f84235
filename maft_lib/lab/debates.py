"""A debate as HTML: who answered what in which round, what changed, the vote.

Answers that are mathematically equivalent carry the same letter. Each is judged against the ground
truth; where a problem has none, nothing is called right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from maft_lib.debate import Debate
from maft_lib.grading import group_equivalent, is_correct
from maft_lib.grading.process import GradingError
from maft_lib.lab.page import chip, facts, fold, framed, letter, text_html, unseen
from maft_lib.lab.records import answer_html, question_html

LONG = 900  # characters of a response that may need to be scrolled
_LEFT = 'style="text-align:left;vertical-align:top"'  # where the stylesheet is missing
_NAMES = {"right": "right", "wrong": "wrong", "none": "no answer", "plain": "an answer"}


def debate_html(debate: Debate, finished: bool = True) -> str:
    """One debate as an output of a notebook.

    `finished=False` is for a debate in progress: agents may have different numbers of turns, the last
    answer of each may still be missing, and there is no vote.
    """
    return framed(debate_body(debate, finished), "maft-debate")


def debate_body(debate: Debate, finished: bool = True) -> str:
    """`debate_html` without the frame and its stylesheet."""
    page = _Page(debate, finished)
    return question_html(debate.problem) + page.rounds() + page.verdict()


class _Page:
    """The parts of one debate's page; `groups` numbers the classes of equivalent answers."""

    def __init__(self, debate: Debate, finished: bool):
        self.debate, self.problem, self.finished = debate, debate.problem, finished
        self.num_rounds = max(map(len, debate.turns), default=0)
        by_round = zip_longest(*debate.answers)
        given = list(dict.fromkeys(a for answers in by_round for a in answers if a is not None))
        classes = sorted(self._classes(given))
        self.groups: dict[str | None, int] = {
            given[i]: number for number, members in enumerate(classes) for i in members
        }

    def rounds(self) -> str:
        """A table with a row per round and a column per agent."""
        if not self.num_rounds:
            return ""
        num = len(self.debate.turns)
        heads = "".join(f'<th scope="col">agent {n + 1}</th>' for n in range(num))
        rows = ""
        for m in range(self.num_rounds):
            role = "critics" if m else "generation agents"
            cells = "".join(self._cell(n, m) for n in range(num))
            rows += f'<tr><th scope="row">round {m + 1} <small>{role}</small></th>{cells}</tr>'
        caption = f"{_number(num, 'agent')}, {_number(self.num_rounds, 'round')}"
        return (
            f'<table class="maft-rounds" style="--agents:{num}"><caption>{caption}</caption>'
            f"<thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        )

    def _cell(self, n: int, m: int) -> str:
        turns, name = self.debate.turns[n], f"agent {n + 1}"
        if m >= len(turns):
            return f'<td {_LEFT} data-agent="{name}" class="maft-waiting">waiting</td>'
        turn = turns[m]
        writing = not self.finished and m == len(turns) - 1
        answer = self._chip(turn.answer, "no answer yet" if writing else "no answer")
        if m and not (writing and turn.answer is None):
            answer += self._change(turns[m - 1].answer, turn.answer)
        summary = ""
        if turn.summary is not None:
            text = f'<div class="maft-text">{text_html(turn.summary)}</div>'
            summary = fold("summary that it read", text, opened=writing and not turn.response)
        scrolled = ""
        if len(turn.response) > LONG:  # keys scroll it, too
            label = f"response of {name} in round {m + 1}"
            scrolled = f' tabindex="0" role="region" aria-label="{label}"'
        return (
            f'<td {_LEFT} data-agent="{name}"><div class="maft-answer">{answer}</div>{summary}'
            f'<div class="maft-text maft-response"{scrolled}>{text_html(turn.response)}</div></td>'
        )

    def verdict(self) -> str:
        """The vote, the ground truth, and what the debate cost."""
        debate, truth = self.debate, self.problem.answer
        pairs: list[tuple[object, str]] = []
        if self.finished and self.num_rounds:
            chosen = self._chip(debate.vote, "no answer could be read")
            pairs.append(("vote", f"{chosen} <small>{self._count()}</small>"))
        if truth.strip():
            pairs.append(("ground truth", chip(truth, "plain", answer_html(truth, self.problem.task))))
        if debate.num_calls:
            read, written = f"{debate.num_prompt_tokens:,}", f"{debate.num_completion_tokens:,}"
            spent = f"{debate.num_calls:,} requests, {read} tokens read, {written} written"
            pairs.append(("cost", f"<small>{spent}</small>"))
        return facts(pairs, "maft-verdict") if pairs else ""

    def _count(self) -> str:
        """How the vote over the last round went, in words."""
        last = [turns[-1].answer if turns else None for turns in self.debate.turns]
        classes = self._classes(last)
        most = max(map(len, classes), default=0)
        tied = sorted(self.groups[last[c[0]]] for c in classes if len(c) == most)
        agents = _number(len(last), "agent")
        if len(tied) > 1:
            names = " and ".join(map(letter, tied))
            return f"a tie of {names} with {most} of {agents} each, broken at random"
        return f"{most} of {agents}" if most else ""

    def _classes(self, answers: Sequence[str | None]) -> list[list[int]]:
        """Places of equivalent answers; of equal ones in a task of one's own."""
        try:
            return group_equivalent(answers, self.problem.task)
        except (GradingError, ValueError):
            given = dict.fromkeys(answer for answer in answers if answer is not None)
            return [[i for i, other in enumerate(answers) if other == answer] for answer in given]

    def _kind(self, answer: str | None) -> str:
        """`right`, `wrong`, `none`, or `plain` where that cannot be said."""
        if answer is None:
            return "none"
        if not self.problem.answer.strip() and self.problem.scoring is None:
            return "plain"
        try:
            return "right" if is_correct(answer, self.problem) else "wrong"
        except (GradingError, ValueError):
            return "plain"

    def _chip(self, answer: str | None, missing: str) -> str:
        """An answer with its mark and the letter of its class."""
        if answer is None:
            return chip(missing, "none")
        shown = answer_html(answer, self.problem.task)
        if answer in self.groups:
            name = letter(self.groups[answer])
            shown += f' <span class="maft-group">{unseen("group ")}{name}</span>'
        return chip(answer, self._kind(answer), shown)

    def _change(self, before: str | None, after: str | None) -> str:
        """How an answer differs from the one of the round before, in words; empty if it does not."""
        old, new = self._kind(before), self._kind(after)
        if old != new:
            tone = " maft-fixed" if new == "right" else " maft-broke" if old == "right" else ""
            return f' <span class="maft-change{tone}">{_NAMES[old]} → {_NAMES[new]}</span>'
        if before == after or self.groups.get(before, -1) == self.groups.get(after, -2):
            return ""
        still = ", still wrong" if new == "wrong" else ""
        return f' <span class="maft-change">changed{still}</span>'


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
