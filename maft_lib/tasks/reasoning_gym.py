"""Tasks `reasoning_gym:<name>`: problems that the reasoning_gym package generates and scores itself.

Some scorers of the package hand the answer to `eval` or to SymPy's `parse_expr`, which execute it. So
only the datasets of `SAFE` are used: their scorers, and all that these call in version 0.1.25 of the
package, execute no text, and they give their own answers the full score.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from maft_lib.tasks.problem import DataError, Problem, half_of, normalised, problem_id
from maft_lib.wording import nearest

PREFIX = "reasoning_gym:"
FULL_SCORE = 0.999  # of 1, which some scorers reach up to rounding
SAFE = """
ab acre advanced_geometry aiw arc_1d base_conversion basic_arithmetic bf binary_alternation
caesar_cipher calendar_arithmetic chain_sum circuit_logic coin_flip color_cube_rotation
complex_arithmetic count_bits count_primes course_schedule cryptarithm decimal_arithmetic
decimal_chain_sum dice emoji_mystery family_relationships figlet_font fraction_simplification futoshiki
game_of_life game_of_life_halting gcd group_anagrams gsm_symbolic isomorphic_strings jugs kakurasu
knight_swap knights_knaves largest_island lcm leg_counting letter_counting letter_jumble list_functions
mahjong_puzzle manipulate_matrix maze mini_sudoku modulo_grid needle_haystack number_filtering
number_format number_sequence palindrome_generation palindrome_partitioning path_star
polynomial_equations pool_matrix power_function prime_factorization products quantum_lock ransom_note
rectangle_count rotate_matrix rotten_oranges self_reference sentence_reordering shortest_path
simple_equations simple_geometry spell_backward string_manipulation string_splitting string_synthesis
sudoku survo syllogism time_intervals tower_of_hanoi tsumego word_ladder word_sequence_reversal
word_sorting zebra_puzzles
""".split()  # noqa: SIM905
_SIZE = 500  # the package's default size of a dataset
_CHUNKS = 40  # datasets that are made, each from a seed of its own, before the problems count as all


def draw(task: str, split: str, num: int, seed: int) -> list[Problem]:
    """`num` different problems of a split, the same ones for the same seed; fewer if there are no more.

    Which split a problem is in is decided by a hash of its question, so train and eval share none
    whatever the seeds. Raises `DataError` for a dataset that is not in `SAFE`, and without the package.
    """
    name, found = task.removeprefix(PREFIX), {}
    for entry in _entries(name, f"{split} {seed}"):
        question, key = entry["question"], normalised(entry["question"])
        if key and key not in found and half_of(question) == split:
            problem = Problem(problem_id(question), task, question, entry["answer"])
            scoring = json.dumps({"name": name, "entry": entry})
            source = f"reasoning_gym {version('reasoning-gym')}"
            found[key] = replace(problem, scoring=scoring, source=source)
        if len(found) == num:
            break
    return list(found.values())


def check_safe(name: str) -> None:
    """Raises `DataError` for unknown datasets and those whose scorer may execute a model's text."""
    if name not in SAFE:
        raise DataError(
            f"{PREFIX}{name} is unknown, or its scorer is not safe with a model's text: did you mean "
            f"'{PREFIX}{nearest(name, SAFE, cutoff=0.0)}'?"
        )


def _entries(name: str, seed: str) -> Iterator[dict[str, Any]]:
    """Entries of datasets made from seeds that are far apart, since item i of one uses its seed + i.

    Those that JSON cannot hold (a few of gsm_symbolic have a Fraction in their metadata) are left out.
    """
    check_safe(name)
    try:
        import reasoning_gym
    except ImportError as error:
        raise DataError(
            f"{PREFIX}{name} needs the reasoning-gym package: pip install 'maft_lib[reasoning-gym]'."
        ) from error
    for chunk in range(_CHUNKS):
        digest = hashlib.sha256(f"{name} {seed} {chunk}".encode()).digest()
        dataset = reasoning_gym.create_dataset(name, seed=int.from_bytes(digest[:4]), size=_SIZE)
        for i in range(_SIZE):
            item = dataset[i]
            entry = {part: item.get(part) for part in ("question", "answer", "metadata")}
            with suppress(TypeError):
                yield json.loads(json.dumps(entry))
