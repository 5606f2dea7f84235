"""Stops a training that diverges and puts its last good weights back. Knows not what is trained."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import TrainerCallback

WINDOW = 5  # steps that a loss is averaged over: single examples vary much
# Agents learn what they said themselves, at well under one nat a token. A mean two nats above the best
# so far is worse than anything that such data can do.
TOO_HIGH = 2.0
SNAPSHOTS = 4  # a training, each one copy of the trained weights in the CPU's memory


class DivergenceGuard(TrainerCallback):
    """Watches the loss of every step; `stopped` says at which step it stopped and what was kept.

    Weights are remembered at each quarter of the training, while the loss is good. A training that
    diverges before the first quarter has nothing good to keep, and `kept_step` is 0.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.stopped: dict[str, Any] | None = None
        self._best = math.inf
        self._kept: list[torch.Tensor] = []
        self._kept_step = 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Judges the loss of the step just done."""
        if self.stopped or "loss" not in (logs or {}):
            return
        self.losses.append(float(logs["loss"]))
        recent = self.losses[-WINDOW:]
        mean, last = sum(recent) / len(recent), self.losses[-1]
        self._best = min(self._best, mean)
        if not math.isfinite(last) or mean > self._best + TOO_HIGH:
            self.stopped = {
                "step": state.global_step,
                "num_steps": state.max_steps,
                "loss": last if math.isfinite(last) else str(last),
                "kept_step": self._kept_step,
            }
            control.should_training_stop = True
        elif state.global_step % max(1, state.max_steps // SNAPSHOTS) == 0:
            trained = (p.detach() for p in kwargs["model"].parameters() if p.requires_grad)
            self._kept = [weight.to("cpu", copy=True) for weight in trained]
            self._kept_step = state.global_step

    def on_train_end(self, args, state, control, model=None, **kwargs):
        """Puts the remembered weights back if the training was stopped."""
        if self.stopped and self._kept:
            trained = [p for p in model.parameters() if p.requires_grad]
            with torch.no_grad():
                for weight, kept in zip(trained, self._kept):
                    weight.copy_(kept.to(weight.device))
        self._kept = []
