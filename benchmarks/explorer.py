"""How long the explorer thinks: python benchmarks/explorer.py [NUMBER OF DEBATES, 1000] [FOLDER]

Three agents debate arithmetic for two rounds, before and after finetuning, each half of the debates;
with a FOLDER of math_test.jsonl they debate MATH. Answers are right at random, or another problem's.
Prints how long it takes to make the explorer, grading included, and for each thing that one can do with
it the median and the worst milliseconds in the kernel. The browser's part comes on top. Seed 0.
"""

import random
import statistics
import sys
import time

from tabulate import tabulate

from maft_lib.debate import Debate, Turn, majority_vote
from maft_lib.lab.explorer import BECAME, DebateExplorer
from maft_lib.tasks import load_problems

NUM_REPEATS = 20
SAID = "First, $3 \\cdot 4 = 12$. Then \\(12 + 1 = 13\\), and so on, step by step. " * 8


def debates(problems, chance, rng):
    """One debate per problem, each answer right with this chance."""
    others = [problem.answer for problem in problems]
    made = []
    for problem in problems:
        answers = [
            [problem.answer if rng.random() < chance else rng.choice(others) for _ in range(2)]
            for _ in range(3)
        ]
        turns = tuple(
            tuple(
                Turn(problem.question, SAID if m else None, f"{SAID} \\boxed{{{answer}}}", answer)
                for m, answer in enumerate(agent)
            )
            for agent in answers
        )
        made.append(Debate(problem, turns, majority_vote([a[1] for a in answers], problem.task, 0)))
    return made


def actions(explorer):
    """What one can do: a name, and a function that takes the number of the repeat."""

    def set_to(control, *values):
        return lambda n: setattr(control, "value", values[n % len(values)])

    return {
        "pick in the list": lambda n: setattr(explorer._list, "index", 7 * n + 1),
        "filter by outcome": set_to(explorer._outcome, "split_vote", "critic_fixed_it", "vote_wrong"),
        "clear filters": lambda _: explorer._clear.click(),
        "search": set_to(explorer._search, "1", "12", "1", ""),
        "filter by method": set_to(explorer._filters["method"], "before", "after", ""),
        "compare": set_to(explorer._compare, "after", ""),
        "compare, filter by change": set_to(explorer._outcome, *BECAME),
    }


def main():
    num = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    folder = sys.argv[2] if len(sys.argv) > 2 else None
    rng = random.Random(0)
    problems = load_problems("math" if folder else "arithmetic", "eval", num // 2, 0, data_dir=folder)
    parts = {"before": debates(problems, 0.5, rng), "after": debates(problems, 0.75, rng)}
    start = time.perf_counter()
    explorer = DebateExplorer(parts)
    rows = [["make the explorer", 1_000 * (time.perf_counter() - start), None]]
    for name, act in actions(explorer).items():
        taken = []
        for n in range(NUM_REPEATS):
            start = time.perf_counter()
            act(n)
            taken.append(1_000 * (time.perf_counter() - start))
        rows.append([name, statistics.median(taken), max(taken)])
    print(tabulate(rows, [f"{len(explorer.debates)} debates", "median ms", "worst ms"], floatfmt=".1f"))


if __name__ == "__main__":
    main()
