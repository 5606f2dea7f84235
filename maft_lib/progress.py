"""How far studies have come: responses and trained agents counted as they happen, and what is left.

A study runs in one thread, so what a thread does belongs to the study that it has entered with
`Progress.study`: nothing has to be handed down through debates and trainings. Where nobody counts, the
functions at the end do nothing. Knows no display, no debates and no models.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maft_lib import events
from maft_lib.estimation.counts import OPEN, PHASES, last_iteration, planned

if TYPE_CHECKING:
    import pandas as pd

    from maft_lib.backends import Completion
    from maft_lib.config import Config


@dataclass
class Count:
    """What a study has done of a phase: responses or agents, `fresh` ones made now, and seconds.

    `paid` are the seconds up to the last fresh one: what was spent since belongs to the next.
    """

    done: int = 0
    fresh: int = 0
    seconds: float = 0.0
    paid: float = 0.0


@dataclass(frozen=True)
class Share:
    """A phase over all studies: `done` of `total`, `stored` of these not made now.

    `at_least`: a study that still runs may take more than the total says.
    """

    phase: str
    done: int
    total: int
    stored: int
    at_least: bool


class Watched:
    """One study: what is known of it before it runs, and what it has done. Its own thread counts."""

    def __init__(self, progress: Progress, method: str, task: str, config: Config):
        self.method, self.task, self.config = method, task, config
        self.state = "waiting"  # then running, finished or failed
        self.phase, self.iteration = "answers", 0
        self.counts = {phase: Count() for phase in PHASES}
        self.frames: list[pd.DataFrame] = []  # the scores of each evaluation
        self._progress, self._since = progress, 0.0

    def total(self, phase: str) -> int:
        """What the study takes of a phase, as far as that is known."""
        done = self.counts[phase].done
        if self.state == "finished":
            return done
        return max(done, planned(self.method, self.config, self.iteration)[phase])

    @property
    def last_iteration(self) -> int:
        """The last that is known of."""
        return last_iteration(self.method, self.config, self.iteration)

    @contextmanager
    def during(self, phase: str, iteration: int, num_agents: int = 0) -> Iterator[None]:
        """The thread's time counts for `phase`; at the end `num_agents` have their checkpoints."""
        before = self.phase
        with self._progress.changing():
            target = self.counts[phase].done + num_agents
            self._turn_to(phase)
            self.iteration = max(self.iteration, iteration)
        try:
            yield
            with self._progress.changing():
                self.counts[phase].done = max(self.counts[phase].done, target)
        finally:
            with self._progress.changing():
                self._turn_to(before)

    def counted(self, answers: Iterable[tuple[int, Completion]]) -> Iterator[tuple[int, Completion]]:
        """The same answers, counted as they pass."""
        with self._progress.generating():
            for index, completion in answers:
                with self._progress.changing():
                    self._add(self.phase, fresh=not completion.stored)
                    if not completion.stored:
                        self._progress.num_tokens += completion.num_completion_tokens
                yield index, completion

    def trained(self) -> None:
        """Another agent has been trained."""
        with self._progress.changing():
            self._add("training", fresh=True)

    def _add(self, phase: str, fresh: bool) -> None:
        count = self.counts[phase]
        count.done += 1
        if fresh:
            count.fresh += 1
            count.paid = self.seconds(phase)

    def evaluated(self, frame: pd.DataFrame) -> None:
        """Takes the scores of an iteration."""
        with self._progress.changing():
            self.frames.append(frame)

    def begin(self) -> None:
        """The clock starts."""
        self.state, self._since = "running", self._progress.clock()

    def end(self, state: str) -> None:
        """The clock stops."""
        self._turn_to(self.phase)
        self.state = state

    def seconds(self, phase: str) -> float:
        """Of this study in a phase so far."""
        now = self.state == "running" and self.phase == phase
        return self.counts[phase].seconds + (self._progress.clock() - self._since if now else 0.0)

    def _turn_to(self, phase: str) -> None:
        now = self._progress.clock()
        self.counts[self.phase].seconds += now - self._since
        self.phase, self._since = phase, now


class Progress:
    """Of several studies, some of which run side by side: read from any thread, at any time.

    `clock` tells seconds. A study of a method that does not exist takes nothing: it will fail.
    """

    def __init__(
        self,
        studies: Sequence[tuple[str, str, Config]],
        clock: Callable[[], float] = time.monotonic,
    ):
        self.clock = clock
        self.began = clock()
        self.studies = [Watched(self, *study) for study in studies]
        self.num_tokens = 0  # generated now, not taken from the store
        self.version = 0  # grows with every change
        self._lock = threading.RLock()
        self._streams, self._generating, self._since = 0, 0.0, 0.0

    @contextmanager
    def study(self, number: int) -> Iterator[None]:
        """What this thread does until the end belongs to that study."""
        study = self.studies[number]
        with self.changing():
            study.begin()
        state = "failed"
        try:
            with events.listening(study):
                yield
            state = "finished"
        finally:
            with self.changing():
                study.end(state)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else reads or counts meanwhile."""
        with self._lock:
            self.version += 1
            yield

    @contextmanager
    def generating(self) -> Iterator[None]:
        """A study waits for responses. Time with several such is counted once."""
        with self.changing():
            self._count_generating()
            self._streams += 1
        try:
            yield
        finally:
            with self.changing():
                self._count_generating()
                self._streams -= 1

    def _count_generating(self) -> None:
        now = self.clock()
        self._generating += now - self._since if self._streams else 0.0
        self._since = now

    def shares(self) -> list[Share]:
        """Each phase that some study has, over all studies."""
        with self._lock:
            shares = []
            for phase in PHASES:
                counts = [study.counts[phase] for study in self.studies]
                done, fresh = sum(c.done for c in counts), sum(c.fresh for c in counts)
                total = sum(study.total(phase) for study in self.studies)
                if total:
                    shares.append(Share(phase, done, total, done - fresh, self._is_open()))
            return shares

    def _is_open(self) -> bool:
        return any(s.method in OPEN and s.state in ("waiting", "running") for s in self.studies)

    def tokens_per_second(self) -> float | None:
        """Generated ones, over the time in which somebody waited for them; None before the first."""
        with self._lock:
            self._count_generating()
            return self.num_tokens / self._generating if self.num_tokens and self._generating else None

    def seconds(self) -> float:
        """Since the beginning."""
        return self.clock() - self.began

    def seconds_left(self) -> float | None:
        """What is left of the known totals at the pace so far; None while a phase has no pace yet.

        The pace of a phase is the time that studies spent on what they made now: what the store holds
        of the rest makes it shorter. As many studies are taken to run side by side as did so far.
        """
        with self._lock:
            left = [self._study_seconds_left(share) for share in self.shares()]
            busy = sum(study.seconds(phase) for study in self.studies for phase in PHASES)
            if None in left or not busy:
                return None
            return sum(filter(None, left)) * self.seconds() / busy

    def _study_seconds_left(self, share: Share) -> float | None:
        """Of one phase, added up over studies as if they ran one by one."""
        counts = [study.counts[share.phase] for study in self.studies]
        fresh, paid = share.done - share.stored, sum(count.paid for count in counts)
        if share.total == share.done:
            return 0.0
        if not (fresh and paid):
            return None
        begun = sum(s.seconds(share.phase) - s.counts[share.phase].paid for s in self._in(share.phase))
        return max(0.0, (share.total - share.done) * paid / fresh - begun)

    def _in(self, phase: str) -> list[Watched]:
        return [s for s in self.studies if s.state == "running" and s.phase == phase]
