"""What a machine does with seven billion parameters: python -m benchmarks.seven_billion PROFILE

Writes the shape of Mistral-7B with random weights: its text means nothing, its speed and memory do.
Debates a round of 500 problems with responses of a fixed length, since random weights hardly ever end
a turn, and trains one agent on 300 examples in three ways. One iteration at 500/500 is eighteen such
rounds (three agents, two rounds and their summaries, on train and eval problems) and six trainings.
"""

import shutil
import sys
from pathlib import Path

import pandas as pd
import torch
from transformers import MistralConfig, MistralForCausalLM

import maft_lib as maft
from benchmarks.speed import backends_here, measure
from maft_lib.backends import release_memory
from maft_lib.config import project_root
from maft_lib.miniature import MODEL
from maft_lib.training.data import Example
from maft_lib.training.finetuning import training_log

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
WAYS = {
    "all parameters, fp32 states": {},
    "all parameters, 8-bit states": {"optim": "paged_adamw_8bit"},
    "LoRA, rank 16": {"lora_rank": 16},
}
PLAIN = {"lora_rank": None, "load_in_4bit": False, "optim": "adamw_torch", "nproc_per_node": 1}


def main():
    config = maft.load_config(sys.argv[1])
    large = write_random_model(config.path(config.runs_dir) / "random_7b", MISTRAL_7B)
    real = {"model_name_or_path": str(large), "dtype": "bfloat16", "max_tokens": 300, "num_rounds": 1}
    real |= {"num_agents": 2, "gradient_checkpointing": True, "per_device_train_batch_size": 1}
    config = config.replace(**real, num_eval=250)
    asked = maft.study.problems(config.task, "eval", config)
    rounds = [measure(together, asked, config) for together, _ in backends_here(config)]
    print(pd.DataFrame(rounds).to_string(index=False))
    print(measure_training(large, lessons(300, 300), config).to_string(index=False))


def write_random_model(folder, shape, dtype="bfloat16"):
    """A Mistral of that shape, weights drawn with seed 0, in `folder`; made once.

    Its tokenizer is the miniature model's, which reads a problem as several times more tokens than a
    large vocabulary does.
    """
    folder, source = Path(folder), project_root() / MODEL
    if (folder / "tokenizer.json").is_file():
        return folder
    release_memory()
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # drawn in seconds on a GPU
        config = MistralConfig(**shape, eos_token_id=1, pad_token_id=0, bos_token_id=None)
        model = MistralForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    for name in ("tokenizer_config.json", "chat_template.jinja", "tokenizer.json"):
        shutil.copy(source / name, folder)
    del model
    release_memory()
    return folder


def measure_training(model, examples, config, ways=WAYS):
    """Trains one agent in each way; peak memory in bytes, seconds and tokens a second, a row each.

    Checkpoints go to a folder beside the store and are removed: one of seven billion parameters takes
    29 GB. A way that fails has a row that says why.
    """
    rows = []
    for name, changes in ways.items():
        runs = config.path(config.runs_dir) / "measured"
        way = config.replace(**{**PLAIN, **changes, "runs_dir": str(runs)})
        try:
            rows.append({"way": name, **one_training(model, examples, way)})
        except RuntimeError as error:
            rows.append({"way": name, "failed": str(error)})  # as fp32 states of 7 billion on 80 GB
        finally:
            shutil.rmtree(runs, ignore_errors=True)
    return pd.DataFrame(rows)


def one_training(model, examples, config):
    folder = maft.finetune(maft.Agent("generation-1", "generator", str(model)), examples, config)
    log = training_log(folder)
    return {
        "peak memory": log["peak_memory"],
        "seconds": log["seconds"],
        "tokens": log["num_tokens"],
        "tokens/s": log["num_tokens"] / log["seconds"],
        "checkpoint": sum(path.stat().st_size for path in folder.iterdir()),
    }


def lessons(num, num_tokens):
    """Made-up conversations with responses of about so many tokens: what is learned is nothing."""
    question = {"role": "user", "content": "What is the result of 1+2*3+4-5*1?"}
    answer = {"role": "assistant", "content": "1+1=2, " * (num_tokens // 6)}
    return [Example(f"{i}", (question, answer)) for i in range(num)]


if __name__ == "__main__":
    main()
