"""Seeds derived from what they are for, so that every random choice is fixed by the run's seed."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: str | int) -> int:
    """A seed below 2**63 from (run seed, iteration, problem, agent, round, purpose) or the like."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
