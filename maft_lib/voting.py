"""The majority vote over final answers (Section 2.1). Knows answers, not who gave them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from maft_lib.grading import normal_form


def majority_vote(answers: Sequence[str | None], task: str, seed: int) -> str | None:
    """The answer that most agents gave, under mathematical equivalence; None if none can be read.

    Unreadable answers (None) do not vote. A tie is broken at random by the seed, whatever the order
    of the answers (Section 3.2: "one of the potential answers is chosen at random").
    """
    clusters: dict[str, list[str]] = defaultdict(list)
    for answer in answers:
        form = normal_form(answer, task) if answer is not None else None
        if answer is not None and form is not None:
            clusters[form].append(answer)
    if not clusters:
        return None
    most = max(len(members) for members in clusters.values())
    tied = sorted(form for form, members in clusters.items() if len(members) == most)
    winner = random.Random(seed).choice(tied)
    return min(clusters[winner], key=lambda answer: (len(answer), answer))
