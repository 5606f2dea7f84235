"""What happened in a finished debate, in words that one can filter by. Knows no widgets and no runs.

An answer that cannot be read is wrong, is in no class of equivalent answers and does not vote, as
everywhere in the library. Where a problem has no ground truth nothing is right, nor is the vote wrong.

An agent is fixed or broken by its own critic turns alone, first answer against last. What the debate
as a whole turned right or wrong is told apart from that, and leaves out what luck in a tie may decide.
"""

from __future__ import annotations

from maft_lib.debate import Debate
from maft_lib.grading import group_equivalent, is_correct

OUTCOMES = (
    "vote_right",
    "vote_wrong",
    "split_vote",
    "tie",
    "unanimous_and_right",
    "unanimous_and_wrong",
    "critic_fixed_it",
    "critic_broke_it",
    "turned_right",
    "turned_wrong",
    "unparsable",
)  # properties of `Judged`, in the order in which they are offered


class Judged:
    """A debate and what is true of it: each name in `OUTCOMES` is a property, several may hold.

    `right[agent][round]` tells whether an answer is right, `first` and `last` are the classes of
    equivalent answers of the first and last round, as lists of agents (`grading.group_equivalent`).
    """

    def __init__(self, debate: Debate):
        problem, answers = debate.problem, debate.answers
        self.debate = debate
        self.right = [[is_correct(answer, problem) for answer in agent] for agent in answers]
        self.first, self.last = (
            group_equivalent([agent[m] for agent in answers], problem.task) for m in (0, -1)
        )
        self._vote_right = is_correct(debate.vote, problem)
        self._has_truth = bool(problem.answer.strip()) or problem.scoring is not None

    def num_right(self, m: int) -> int:
        """How many agents are right in a round, counted from 0, or from the end below 0."""
        return sum(agent[m] for agent in self.right)

    @property
    def vote_right(self) -> bool:
        """The vote is right."""
        return self._vote_right

    @property
    def vote_wrong(self) -> bool:
        """The vote is wrong, or there is none since no answer of the last round can be read."""
        return self._has_truth and not self._vote_right

    @property
    def split_vote(self) -> bool:
        """The answers of the last round that can be read are in more than one class."""
        return len(self.last) > 1

    @property
    def tie(self) -> bool:
        """Two or more classes of the last round are the largest, so the vote was drawn at random."""
        return len(_largest(self.last)) > 1

    @property
    def unanimous_and_right(self) -> bool:
        """Two or more agents, all in one class in the last round, and the vote is right."""
        return self._unanimous and self._vote_right

    @property
    def unanimous_and_wrong(self) -> bool:
        """Two or more agents, all in one class in the last round, and the vote is wrong."""
        return self._unanimous and self.vote_wrong

    @property
    def critic_fixed_it(self) -> bool:
        """Some agent's first answer is wrong and its last one right."""
        return any(agent[-1] and not agent[0] for agent in self.right)

    @property
    def critic_broke_it(self) -> bool:
        """Some agent's first answer is right and its last one wrong."""
        return any(agent[0] and not agent[-1] for agent in self.right)

    @property
    def turned_right(self) -> bool:
        """The first answers could not have won right, not even by luck in a tie, and the vote is right.

        That is: several rounds, and no right answer is in a largest class of the first round.
        """
        chances = self._first_chances
        return self._several_rounds and self._vote_right and not any(chances)

    @property
    def turned_wrong(self) -> bool:
        """The first answers must have won right, whatever the luck, and the vote is wrong.

        That is: several rounds, and every largest class of the first round is right.
        """
        chances = self._first_chances
        return self._several_rounds and self.vote_wrong and bool(chances) and all(chances)

    @property
    def unparsable(self) -> bool:
        """Some answer of the last round cannot be read, so its agent did not vote."""
        return sum(map(len, self.last)) < len(self.right)

    @property
    def _unanimous(self) -> bool:
        return len(self.last) == 1 and len(self.last[0]) == len(self.right) > 1

    @property
    def _several_rounds(self) -> bool:
        return len(self.right[0]) > 1

    @property
    def _first_chances(self) -> list[bool]:
        """For each class that could have won the first round, whether it is right."""
        return [any(self.right[n][0] for n in group) for group in _largest(self.first)]


def _largest(groups: list[list[int]]) -> list[list[int]]:
    """The groups with the most members; several in a tie."""
    return [group for group in groups if len(group) == max(map(len, groups))]
