"""An estimate in words: its title, its lines, and numbers as people say them. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maft_lib.estimation import Estimate
    from maft_lib.estimation.phases import Memory, Span
    from maft_lib.estimation.roofline import Seconds

GIB = 2**30


def title(made: Estimate) -> str:
    """Of which study it is."""
    return f"Estimate for {_study(made)}, with {made.model}"


def headline(made: Estimate) -> str:
    """Memory, disk and time, or where they are unknown requests and tokens, in one line."""
    if made.memory is None or made.seconds is None:
        return f"{_study(made)}: {made.requests:,} requests, {_tokens(made)}"
    parts = [f"generation {size(made.memory.least_generation)} at least"]
    if made.num_trainings:
        parts += [f"training {size(made.memory.training.expected)}", f"disk {size(made.disk_bytes)}"]
    return f"{_study(made)}: {', '.join(parts)}, {duration(made.seconds.total)} on {made.hardware}"


def rows(made: Estimate) -> Iterator[tuple[str, str]]:
    """(what, how much) of each line."""
    if made.num_parameters:
        yield "parameters", count(made.num_parameters)
    yield "requests", f"{made.requests:,}"
    most = [count(span.at_most) for span in (made.tokens_read, made.tokens_generated)]
    yield "tokens", f"{_tokens(made)} (at most {most[0]} and {most[1]})"
    if made.num_trainings:
        yield "training", f"{made.num_trainings} x {_span(made.training_tokens)} tokens"
    if made.memory is not None:
        yield "memory", _memory(made, made.memory)
    if made.memory is not None and made.num_trainings > made.num_iterations:  # a society of several
        yield f"{2 * made.num_agents} agents", _agents(made.memory)
    yield "disk", _disk(made)
    if made.seconds is not None and made.seconds_at_most is not None:
        yield "time", _time(made.seconds, made.seconds_at_most, made.hardware)
    yield "assumed", "; ".join(made.notes)


def _study(made: Estimate) -> str:
    times = f", L = {made.num_iterations}" if made.num_iterations else ""
    return f"{made.method} on {made.task}{times}"


def _tokens(made: Estimate) -> str:
    read, written = made.tokens_read.expected, made.tokens_generated.expected
    return f"{count(read)} tokens read, {count(written)} generated"


def _span(span: Span) -> str:
    return f"{count(span.expected)} (at most {count(span.at_most)})"


def _memory(made: Estimate, needs: Memory) -> str:
    text = f"generation {size(needs.generation)}"
    if needs.least_generation < needs.generation:
        text += f" ({size(needs.least_generation)} at least)"
    if not made.num_trainings:
        return text
    agents = "one agent" if needs.trained_at_a_time == 1 else f"{needs.trained_at_a_time} agents"
    trained, most = size(needs.training.expected), size(needs.training.at_most)
    paged = f"; {size(needs.pageable)} of it may move to RAM" if needs.pageable else ""
    return f"{text}, training {agents} {trained} (at most {most}{paged})"


def _agents(needs: Memory) -> str:
    return (
        f"in inference all at once {size(needs.all_agents)}, one at a time {size(needs.weights)}, "
        f"as adapters of one base {size(needs.adapters)}"
    )


def _disk(made: Estimate) -> str:
    completions = f"completions {size(made.completion_bytes.expected)}"
    if not made.checkpoint_bytes:
        return completions
    return f"checkpoints {size(made.checkpoint_bytes)}, {completions}"


def _time(spent: Seconds, most: float, hardware: str) -> str:
    phases = ", ".join(f"{n} {duration(s)}" for n, s in zip(spent._fields, spent) if s >= 1)
    return f"{duration(spent.total)} (at most {duration(most)}) on {hardware}: {phases}"


def count(number: float) -> str:
    """Three significant digits with a unit, as tokens and parameters are named."""
    for unit, name in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes in GiB, in MiB below one."""
    if number >= GIB:
        return f"{number / GIB:.1f} GiB" if number < 100 * GIB else f"{number / GIB:,.0f} GiB"
    return f"{number / 2**20:.0f} MiB"


def duration(number: float) -> str:
    """Seconds as people say them."""
    if number >= 2 * 3600:
        return f"{number / 3600:.1f} h"
    return f"{number / 60:.0f} min" if number >= 120 else f"{number:.0f} s"
