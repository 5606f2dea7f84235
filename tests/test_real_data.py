"""The real data files, where they are at hand: MAFT_DATA_DIR, else shared/data beside the project."""

import os
import warnings
from pathlib import Path

import pytest

from maft_lib.study import check_disjoint
from maft_lib.tasks import PUBLISHED, load_problems, published
from maft_lib.tasks.problem import normalised

REAL = Path(os.environ.get("MAFT_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")


def real(task, split="test"):
    """A real split, and the reasons that its warnings give; skips where there is no file."""
    files = [name.format(split) for name in published.RECORDS[task].files]
    if not any((REAL / file).is_file() for file in files):
        pytest.skip(f"no {' or '.join(files)} in {REAL}")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loaded = published.load(task, split, REAL)
    return loaded, " ".join(str(warning.message) for warning in told)


@pytest.mark.parametrize(
    "task, split, count, left_out",
    [("gsm", "train", 7473, 0), ("gsm", "test", 1319, 0), ("math", "test", 5000, 1)],
)
def test_the_real_files_load(task, split, count, left_out):
    loaded, told = real(task, split)
    assert len(loaded) == count - left_out and bool(told) == bool(left_out)
    assert {p.source for p in loaded} == {published.RECORDS[task].files[0].format(split)}
    assert all(p.answer and p.question for p in loaded)
    assert len({normalised(p.question) for p in loaded}) == len(loaded)


@pytest.mark.filterwarnings("ignore::maft_lib.tasks.problem.DataWarning")
def test_the_real_math_has_as_many_problems_of_levels_1_to_3_as_it_should():
    loaded, _ = real("math")
    assert sum(p.level in (1, 2, 3) for p in loaded) == 2462 - 1  # record 2349 repeats record 1023
    for split in ("train", "eval"):
        assert len(published.pool("math", split, str(REAL), "refuse")) > 2400
        assert len(load_problems("math", split, 500, levels=[1, 2, 3], data_dir=str(REAL))) == 500


def test_the_real_mmlu_loads():
    loaded, told = real("mmlu")
    assert len(loaded) == 3018 - 16 and "left out (16)" in told
    assert {p.answer for p in loaded} == set("ABCD") and len({p.subject for p in loaded}) == 18


@pytest.mark.parametrize("task", PUBLISHED)
@pytest.mark.filterwarnings("ignore::maft_lib.tasks.problem.DataWarning")
def test_the_real_splits_are_disjoint_over_seeds(task):
    real(task)
    for seed in range(5):
        check_disjoint(
            *(load_problems(task, split, 500, seed, data_dir=str(REAL)) for split in ("train", "eval"))
        )
    check_disjoint(*(published.pool(task, split, str(REAL), "refuse") for split in ("train", "eval")))
