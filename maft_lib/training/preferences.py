"""Preference training of critics by DPO (Rafailov et al., 2023), which the reviewers asked about.

Instead of imitating its own responses that agree with the vote, a critic learns to prefer them to
responses that do not. The reference is the model that training starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel, Trainer

from maft_lib.backends.rendering import IGNORED

Row = dict[str, list[int]]  # `input_ids` and `labels` of a rendered conversation
Collate = Callable[[list[Row]], dict[str, torch.Tensor]]  # rows into a padded batch


def response_log_likelihoods(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed log-likelihood in nats of the labelled tokens: (rows, tokens, vocabulary) to (rows,)."""
    targets = labels[:, 1:]
    taken = targets != IGNORED
    scores = logits[:, :-1].float().log_softmax(-1)
    picked = scores.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (picked * taken).sum(-1)


def dpo_loss(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """Equation 7 of the DPO paper, a scalar, for log-likelihoods (2 x pairs,), chosen ones first."""
    chosen, rejected = (policy - reference).chunk(2)
    return -logsigmoid(beta * (chosen - rejected)).mean()


def rows_of(pairs: Sequence[tuple[Row, Row]], model: PreTrainedModel, collate: Collate) -> list[dict]:
    """Pairs of a chosen and a rejected response, with the log-likelihoods that the reference gives."""
    rows = []
    with torch.inference_mode():
        for pair in pairs:
            batch = {name: tensor.to(model.device) for name, tensor in collate([*pair]).items()}
            scores = response_log_likelihoods(model(batch["input_ids"]).logits, batch["labels"])
            rows.append({"pair": pair, "reference": scores.tolist()})
    return rows


class PreferenceTrainer(Trainer):
    """A trainer on `rows_of` whose loss is that of DPO at strength `beta`."""

    loss_is_scaled_for_ga = False  # the loss is a mean over pairs, whatever is accumulated

    def __init__(self, model, args, rows: list[dict], collate: Collate, beta: float):
        def together(rows: list[dict]) -> dict[str, torch.Tensor]:
            batch = collate([row["pair"][side] for side in (0, 1) for row in rows])
            reference = [row["reference"][side] for side in (0, 1) for row in rows]
            return {**batch, "reference": torch.tensor(reference)}

        super().__init__(model, args, train_dataset=rows, data_collator=together)
        self.beta = beta

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of a batch of pairs, a scalar."""
        logits = model(inputs["input_ids"]).logits
        policy = response_log_likelihoods(logits, inputs["labels"])
        loss = dpo_loss(policy, inputs["reference"].to(policy.device), self.beta)
        return (loss, logits) if return_outputs else loss
