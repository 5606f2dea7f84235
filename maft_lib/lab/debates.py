"""A debate as HTML: who answered what in which round, what changed, the vote.

Answers that are mathematically equivalent carry the same letter. Each is judged against the ground
truth; where a problem has none, nothing is called right or wrong.
"""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest

from maft_lib.debate import Debate
from maft_lib.grading import group_equivalent, is_correct
from maft_lib.grading.process import GradingError
from maft_lib.lab.page import drawn, framed

_NAMES = {"none": "no answer", "plain": "an answer"}


def debate_html(debate: Debate, finished: bool = True) -> str:
    """One debate as an output of a notebook.

    `finished=False` is for a debate in progress: agents may have different numbers of turns, the last
    answer of each may still be missing, and there is no vote.
    """
    return framed(drawn("debate", View(debate, finished)), "maft-debate")


class View:
    """What the page of a debate says of its answers.

    `groups` has the letters of classes of equivalent answers, `right` whether one is right, as far as
    that can be said. In a task of one's own nothing is judged, and only equal answers are equivalent.
    """

    def __init__(self, debate: Debate, finished: bool = True):
        self.debate, self.problem, self.finished = debate, debate.problem, finished
        self.num_rounds = max(map(len, debate.turns), default=0)
        by_round = [answer for answers in zip_longest(*debate.answers) for answer in answers]
        given = [a for a in dict.fromkeys([*by_round, debate.vote]) if a is not None]
        self.right: dict[str, bool] = {}
        try:
            classes = sorted(group_equivalent(given, self.problem.task))
            if self.problem.answer.strip() or self.problem.scoring is not None:
                self.right = {answer: is_correct(answer, self.problem) for answer in given}
        except (GradingError, ValueError):
            classes = [[i] for i in range(len(given))]
        self.groups = {given[i]: _letter(n) for n, members in enumerate(classes) for i in members}

    def kind(self, answer: str | None) -> str:
        """`right`, `wrong`, `none`, or `plain` where that cannot be said."""
        if answer is None:
            return "none"
        return {True: "right", False: "wrong", None: "plain"}[self.right.get(answer)]

    def count(self) -> str:
        """How the vote over the last round went, in words."""
        last = [turns[-1].answer for turns in self.debate.turns if turns]
        votes = Counter(self.groups[answer] for answer in last if answer in self.groups).most_common()
        agents = f"{len(last)} agent{'s' if len(last) != 1 else ''}"
        tied = [name for name, num in votes if num == votes[0][1]]
        if len(tied) > 1:
            names = " and ".join(sorted(tied))
            return f"a tie of {names} with {votes[0][1]} of {agents} each, broken at random"
        return f"{votes[0][1]} of {agents}" if votes else ""

    def change(self, before: str | None, after: str | None) -> tuple[str, str]:
        """How an answer differs from the one of the round before, in words, and the class of these."""
        old, new = self.kind(before), self.kind(after)
        if old != new:
            tone = " maft-fixed" if new == "right" else " maft-broke" if old == "right" else ""
            return f"{_NAMES.get(old, old)} → {_NAMES.get(new, new)}", tone
        if before == after or self.groups.get(str(before), "?") == self.groups.get(str(after)):
            return "", ""
        return "changed, still wrong" if new == "wrong" else "changed", ""


def _letter(number: int) -> str:
    """A, B, ..., Z, AA, AB, ... for 0, 1, 2, ..."""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)
