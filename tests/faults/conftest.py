"""One undisturbed study to compare with, and the tally that is printed at the end."""

import os
import shutil
from collections import Counter
from threading import Lock

import pytest

from tests.faults.disturbed import Disturbed

KILLS = int(os.environ.get("MAFT_FAULT_KILLS", "10"))
_tally: dict[str, Counter] = {}
_counting = Lock()


class Tally:
    """Counts, for one kind of fault, what was tried and what it did."""

    def __init__(self, kind):
        self.counts = _tally.setdefault(kind, Counter())

    def count(self, tried=1, lost=0, orphans=0, **kinds):
        """`lost` are completions that were in the store before the fault and are not after it."""
        self._add({"tried": tried, "lost": lost, "orphans": orphans, **kinds})

    def compare(self, study, undisturbed):
        """A study that was finished after faults, with the undisturbed one."""
        different = study.results() != undisturbed.results()
        self._add({"finished": 1, "differed": different})
        assert not different, f"{study.tables} differs"

    def _add(self, counts):
        with _counting:
            self.counts.update(counts)


@pytest.fixture
def tally():
    """The counts of a kind of fault."""
    return Tally


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A finished study that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    study = Disturbed(folder)
    process = study.start()
    for name, completions, checkpoints in [("early", 20, 0), ("half", 60, 1)]:
        study.wait_for(process, completions, checkpoints)
        study.copy_as_killed(process, folder / name)
    calls, trained, _ = study.finish(process)
    assert calls == len(study.keys()) > 100 and trained == len(study.checkpoints()) == 8
    return study


@pytest.fixture
def killed(undisturbed, tmp_path):
    """Makes a study of what a kill had left when it was `early`, generating, or `half` finetuned."""

    def make(when, runs=None):
        study = Disturbed(tmp_path / "killed", runs)
        shutil.copytree(undisturbed.tables / when, study.runs)
        return study

    return make


def pytest_terminal_summary(terminalreporter):
    """What the table in docs/faults.md says."""
    if not _tally:
        return
    terminalreporter.section("faults")
    names = ("tried", "lost", "orphans", "finished", "differed")
    terminalreporter.line(f"{'':34}" + "".join(f"{name:>10}" for name in names))
    for kind, counts in _tally.items():
        terminalreporter.line(f"{kind:34}" + "".join(f"{counts[name]:>10}" for name in names))
        others = {name: count for name, count in counts.items() if name not in names}
        if others:
            terminalreporter.line(f"{'':34}  " + ", ".join(f"{n}: {c}" for n, c in others.items()))
