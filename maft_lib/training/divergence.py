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
SNAPSHOTS = 4  # a training


class DivergenceGuard(TrainerCallback):
    """Watches the loss of every step; `stopped` says at which step it stopped and what was kept.

    Weights are copied at each quarter of the training, before a step, and kept once the loss of that
    step shows them to be good: two copies in the CPU's memory. A training that diverges before there
    are any has nothing good to keep, and `kept_step` is 0.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.stopped: dict[str, Any] | None = None
        self._best = math.inf
        self._kept: list[torch.Tensor] = []
        self._tried: list[torch.Tensor] = []
        self._kept_step = self._tried_step = 0

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        """Copies the weights that the step is going to judge."""
        step = state.global_step
        if not step or step % max(1, state.max_steps // SNAPSHOTS) or step == self._tried_step:
            return
        trained = [p.detach() for p in model.parameters() if p.requires_grad]
        if not self._tried:
            self._tried = [torch.empty_like(weight, device="cpu") for weight in trained]
        for copy, weight in zip(self._tried, trained):
            copy.copy_(weight)
        self._tried_step = step

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Judges the loss of the step just done, which is that of the weights before it."""
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
        elif self._tried_step == state.global_step - 1 != self._kept_step:
            self._kept, self._tried = self._tried, self._kept
            self._kept_step = self._tried_step

    def on_train_end(self, args, state, control, model=None, **kwargs):
        """Puts the remembered weights back if the training was stopped."""
        if self.stopped and self._kept:
            trained = [p for p in model.parameters() if p.requires_grad]
            with torch.no_grad():
                for weight, kept in zip(trained, self._kept):
                    weight.copy_(kept.to(weight.device))
        self._kept = self._tried = []
