"""A fixed text whose likelihood tells whether an engine really holds a model's weights.

The trainer writes the likelihood under the weights that it saves into `training.json`; an engine that
has swapped weights in compares its own. Knows no engine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maft_lib.backends.hub import Tokenizer
from maft_lib.checkpoints import LOG
from maft_lib.rendering import render_prompt, tokenize

QUESTION = "What is the result of 3+4*5+2-1*6?"
ANSWER = "4*5 = 20 and 1*6 = 6. 3+20+2-6 = 19. The answer is \\boxed{19}."
# Mean nats a token by which two engines may differ. In 16 bits that is a few hundredths (an accuracy of
# 3 digits on logits of tens), in fp32 rounding. Another model's weights, or a swap done in part, are
# off by tenths and more. Finetuning at small rates moves the likelihood by less than 16 bits tell, so
# whether a swap did anything at all is told by sums of the weights (see `vllm_worker`).
TOLERANCE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.05}


def canary_ids(tokenizer: Tokenizer) -> list[int]:
    """Token ids of the fixed question and answer, by the model's own chat template."""
    prompt = render_prompt(tokenizer, [{"role": "user", "content": QUESTION}])
    return [*prompt, *tokenize(tokenizer, ANSWER)]


def mean_nll(model: Any, tokenizer: Tokenizer) -> float:
    """Mean negative log-likelihood of the canary in nats a token, by a transformers model in fp32."""
    import torch

    ids = torch.tensor([canary_ids(tokenizer)], device=model.device)
    training = model.training
    with torch.inference_mode():
        loss = model.eval()(input_ids=ids, labels=ids, use_cache=False).loss
    model.train(training)
    return float(loss)


def expected_nll(folder: str | Path) -> float | None:
    """What the trainer measured under a checkpoint's weights; None for a model not finetuned here."""
    path = Path(folder) / LOG
    return json.loads(path.read_text()).get("canary") if path.is_file() else None
