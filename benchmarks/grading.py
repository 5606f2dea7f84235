"""How fast answers are compared and voted on: python benchmarks/grading.py [FOLDER OF math_test.jsonl]

Prints two figures. (1) 10,000 comparisons of integers and fractions, no two alike, in one process.
(2) The vote of five agents on 500 MATH problems: each agent answers with the ground truth, with the
same in another spelling or with another problem's answer, at random. Seed 0.
"""

import random
import sys
import time

import maft_lib as maft

NUM_COMPARISONS, NUM_PROBLEMS, NUM_AGENTS = 10_000, 500, 5


def typical_pair(rng):
    """Two answers as agents write them, about half of them equal."""
    a, b = rng.randint(-10_000, 10_000), rng.randint(2, 99)
    first = rng.choice([f"{a}", f"{a:,}", f"\\frac{{{a}}}{{{b}}}", f"{a}/{b}"])
    exact = (
        f"{a}"
        if "/" not in first and "frac" not in first
        else rng.choice([f"\\dfrac{{{a}}}{{{b}}}", f"{a}/{b}"])
    )
    return first, exact if rng.random() < 0.5 else f"{rng.randint(-10_000, 10_000)}"


def spelled(answer, rng):
    """The same answer in another spelling."""
    return rng.choice(["{}", "${}$", "\\left({}\\right)", "{}.", "x = {}", "\\displaystyle {}"]).format(
        answer
    )


def main():
    rng = random.Random(0)
    pairs = [typical_pair(rng) for _ in range(NUM_COMPARISONS)]
    start = time.perf_counter()
    equal = sum(maft.is_equivalent(a, b, "math") for a, b in pairs)
    print(f"{NUM_COMPARISONS} comparisons: {time.perf_counter() - start:.2f} s ({equal} equal)")

    folder = sys.argv[1] if len(sys.argv) > 1 else None
    golds = [p.answer for p in maft.load_problems("math", "eval", NUM_PROBLEMS, 0, data_dir=folder)]
    answers = [
        [rng.choice([gold, spelled(gold, rng), rng.choice(golds)]) for _ in range(NUM_AGENTS)]
        for gold in golds
    ]
    start = time.perf_counter()
    votes = [maft.majority_vote(given, "math", 0) for given in answers]
    right = sum(maft.is_equivalent(vote, gold, "math") for vote, gold in zip(votes, golds))
    seconds = time.perf_counter() - start
    print(
        f"vote of {NUM_AGENTS} agents on {NUM_PROBLEMS} MATH problems: {seconds:.2f} s ({right} right)"
    )


if __name__ == "__main__":
    main()
