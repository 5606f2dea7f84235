"""A model of a published shape with random weights: its text means nothing, its speed and memory do.

What a machine can do with a model of seven billion parameters can so be measured without having one.
Responses have a fixed length, since random weights hardly ever end a turn. Knows no debates.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from maft_lib.backends import BackendError, release_memory
from maft_lib.config import Config, project_root
from maft_lib.miniature import MODEL
from maft_lib.society import Agent
from maft_lib.store.files import StoreError
from maft_lib.training import FinetuneError
from maft_lib.training.data import Example
from maft_lib.training.finetuning import finetune, training_log
from maft_lib.training.launching import LaunchError

MISTRAL_7B = {  # mistralai/Mistral-7B-Instruct-v0.2
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "rope_theta": 1e6,
    "sliding_window": None,
    "tie_word_embeddings": False,
}
# How agents of that size are trained: the paper's way, with less memory, and with much less.
WAYS: dict[str, dict[str, Any]] = {
    "all parameters, fp32 states": {},
    "all parameters, 8-bit states": {"optim": "paged_adamw_8bit"},
    "LoRA, rank 16": {"lora_rank": 16},
}
_PLAIN = {"lora_rank": None, "load_in_4bit": False, "optim": "adamw_torch", "nproc_per_node": 1}


def write_random_model(folder: str | Path, shape: dict[str, Any], dtype: str = "bfloat16") -> Path:
    """A Mistral of that shape, weights drawn with seed 0, in `folder`; made once.

    Its tokenizer is the miniature model's, which reads a problem as several times more tokens than a
    large vocabulary does.
    """
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    folder, source = Path(folder), project_root() / MODEL
    if (folder / "tokenizer.json").is_file():
        return folder
    release_memory()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):  # 14 GB are drawn in seconds there
        config = MistralConfig(**shape, eos_token_id=1, pad_token_id=0, bos_token_id=None)
        model = MistralForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    for name in ("tokenizer_config.json", "chat_template.jinja", "tokenizer.json"):
        shutil.copy(source / name, folder)
    del model
    release_memory()
    return folder


def measure_training(
    model: str | Path, examples: Sequence[Example], config: Config, ways: dict[str, dict] = WAYS
) -> pd.DataFrame:
    """Trains one agent in each way; peak memory in bytes, seconds and tokens a second, a row each.

    Checkpoints go to a folder beside the store and are removed: one of seven billion parameters takes
    29 GB. A way that fails has a row that says why.
    """
    rows = []
    for name, changes in ways.items():
        runs = config.path(config.runs_dir) / "measured"
        way = config.replace(**{**_PLAIN, **changes, "runs_dir": str(runs)})
        try:
            rows.append({"way": name, **_one_training(model, examples, way)})
        except (BackendError, FinetuneError, LaunchError, StoreError) as error:
            rows.append({"way": name, "failed": str(error)})  # as fp32 states of 7 billion on 80 GB
        finally:
            shutil.rmtree(runs, ignore_errors=True)
    return pd.DataFrame(rows)


def _one_training(model: str | Path, examples: Sequence[Example], config: Config) -> dict:
    folder = finetune(Agent("generation-1", "generator", str(model)), examples, config)
    log = training_log(folder)
    return {
        "peak memory": log["peak_memory"],
        "seconds": log["seconds"],
        "tokens": log["num_tokens"],
        "tokens/s": log["num_tokens"] / log["seconds"],
        "checkpoint": sum(path.stat().st_size for path in folder.iterdir()),
    }


def lessons(num: int, num_tokens: int) -> list[Example]:
    """Made-up conversations with responses of about so many tokens: what is learned is nothing."""
    question = {"role": "user", "content": "What is the result of 1+2*3+4-5*1?"}
    answer = {"role": "assistant", "content": "1+1=2, " * (num_tokens // 6)}
    return [Example(f"{i}", (question, answer)) for i in range(num)]
