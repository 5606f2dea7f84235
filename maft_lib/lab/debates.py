"""A debate as HTML: who answered what in which round, what changed, the vote.

Answers that are mathematically equivalent carry the same letter. Each is judged against the ground
truth; where a problem has none, nothing is called right or wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import zip_longest

from maft_lib.debate import Debate
from maft_lib.grading import group_equivalent, is_correct
from maft_lib.grading.process import GradingError
from maft_lib.lab.page import drawn, framed

_NAMES = {"none": "no answer", "plain": "an answer"}
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_AGENTS = re.compile(r"\bagent \d+|\bagents \d+(?:, \d+)*,? and \d+", re.I)


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
        self.judged = bool(self.problem.answer.strip()) or self.problem.scoring is not None
        self.right: dict[str, bool] = {}
        try:
            classes = sorted(group_equivalent(given, self.problem.task))
            if self.judged:
                self.right = {answer: is_correct(answer, self.problem) for answer in given}
        except (GradingError, ValueError):
            classes = [[i] for i in range(len(given))]
        self.groups = {given[i]: _letter(n) for n, members in enumerate(classes) for i in members}

    def kind(self, answer: str | None) -> str:
        """`right`, `wrong`, `none`, or `plain` where that cannot be said."""
        if answer is None:
            return "none"
        return {True: "right", False: "wrong", None: "plain"}[self.right.get(answer)]

    def first_votes(self) -> list[str]:
        """The letters that a vote over the first answers could have chosen: several in a tie."""
        return self._most([turns[0].answer for turns in self.debate.turns if turns])[0]

    def count(self) -> str:
        """How the vote over the last round went, in words."""
        last = [turns[-1].answer for turns in self.debate.turns if turns]
        tied, num = self._most(last)
        if len(tied) > 1:
            number = _NUMBERS.get(len(tied), str(len(tied)))
            return f"{number}-way tie ({', '.join(tied)}), drawn at random"
        return f"{num} of {len(last)} agent{'s' if len(last) != 1 else ''}" if num else ""

    def _most(self, answers: list[str | None]) -> tuple[list[str], int]:
        """The letters that most of the answers have, in order, and how many have each of these."""
        votes = Counter(self.groups[answer] for answer in answers if answer in self.groups)
        most = max(votes.values(), default=0)
        return sorted(letter for letter, num in votes.items() if num == most), most

    def summary(self, agent: int, number: int) -> str:
        """The summary that an agent read in a round, with the others' own numbers.

        Prompts number the other agents from 1; so the first that agent 1 reads about is called agent 2.
        """
        others = [n + 1 for n in range(len(self.debate.turns)) if n != agent]

        def own(found: re.Match[str]) -> str:
            return re.sub(
                r"\d+", lambda n: str(dict(enumerate(others, 1)).get(int(n[0]), n[0])), found[0]
            )

        return _AGENTS.sub(own, self.debate.turns[agent][number].summary or "")

    def cost(self, agent: int, number: int) -> str:
        """The seed of a turn, its tokens and seconds, in words; nothing where these are not known."""
        if not self.debate.costs:
            return ""
        seed, read, written, seconds = self.debate.costs[agent][number]
        return f"seed {seed}, {read:,} tokens read, {written:,} written, {seconds:.3f} s"

    def change(self, agent: int, number: int) -> tuple[str, str]:
        """How an answer differs from the one of the round before, in words, and the class of these."""
        if not number:
            return "", ""
        before, after = (self.debate.turns[agent][m].answer for m in (number - 1, number))
        old, new = self.kind(before), self.kind(after)
        tone = "" if old == new else {"right": "fixed"}.get(new) or {"right": "broke"}.get(old, "")
        if old != new == "none":
            return f"lost its {'right ' if old == 'right' else ''}answer", tone
        if old != new:
            return f"{_NAMES.get(old, old)} → {_NAMES.get(new, new)}", tone
        if before == after or self.groups.get(str(before), "?") == self.groups.get(str(after)):
            return "", ""
        return "new answer, still wrong" if new == "wrong" else "new answer", ""


def _letter(number: int) -> str:
    """A, B, ..., Z, AA, AB, ... for 0, 1, 2, ..."""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)
