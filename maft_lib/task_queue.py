"""The tasks of one call on a cluster that wait for a worker. Knows no cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from maft_lib.workers import WorkerError

RETRIES = 3  # of a task whose worker was lost; what has killed four workers kills the fifth as well


class TaskQueue:
    """The tasks of one call that wait, and how often a task's worker was lost."""

    def __init__(self, tasks: Sequence[tuple]):
        self.tasks, self.waiting = tasks, list(range(len(tasks)))
        self._lost: Counter[int | None] = Counter()

    def take(self, holds: tuple = (), others: Sequence[tuple] = ()) -> int:
        """The next task: one that begins as `holds`, else as none of `others`, else the first."""

        def cost(index: int) -> tuple[bool, bool]:
            begins = self.tasks[index][:1]
            return begins != holds, begins in others

        index = min(self.waiting, key=cost) if others else self.waiting[0]
        self.waiting.remove(index)
        return index

    def put_back(self, index: int | None, loss: Exception) -> None:
        """Has a task done by another worker; None stands for a worker lost before it had one."""
        self._lost[index] += 1
        if self._lost[index] > (RETRIES if index is not None else 4 * RETRIES):
            raise WorkerError(
                f"workers of the Ray cluster were lost {self._lost[index]} times at the same task (out "
                "of memory?): run again, what is finished is kept; if it happens again, lower "
                f"max_batch_size or per_device_train_batch_size. Ray says: {loss}"
            )
        if index is not None:
            self.waiting.insert(0, index)
