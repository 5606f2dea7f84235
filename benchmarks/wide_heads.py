"""The miniature model with wider attention heads, computing the same: for engines without heads of 16.

    python benchmarks/wide_heads.py FOLDER

vLLM's attention on a CPU knows heads of 32 dimensions and more. Knows nothing of vLLM.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from maft_lib.config import project_root
from maft_lib.miniature import MODEL

UNCHANGED = ("generation_config.json", "tokenizer*", "special_tokens_map.json", "chat_template*")


def widen_heads(source: str | Path, folder: str | Path) -> Path:
    """Writes the Llama model of `source` with heads twice as wide into `folder`, and returns it.

    The new dimensions are zero, so logits are the same up to rounding. Rotary positions turn the pair
    (i, i + d/2) of a head at the rate base^(-2i/d); in a head of 2d dimensions the pair (2i, 2i + d)
    turns at that rate, so that is where the old dimensions go. Attention divides scores by the root
    of the head's width, which the queries make up for.
    """
    source, folder = Path(source), Path(folder)
    config = json.loads((source / "config.json").read_text())
    width = config["head_dim"]
    half = torch.arange(width // 2)
    rotated = torch.cat([2 * half, 2 * half + width])  # new places of a head's dimensions
    weights = load_file(source / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weights[name] = _spread(weight, width, rotated) * (2**0.5 if "q_proj" in name else 1)
        elif name.endswith("v_proj.weight"):
            weights[name] = _spread(weight, width, torch.arange(width))
        elif name.endswith("o_proj.weight"):
            weights[name] = _spread(weight.T, width, torch.arange(width)).T.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"head_dim": 2 * width}, indent=2) + "\n")
    for pattern in UNCHANGED:
        for path in source.glob(pattern):
            shutil.copy(path, folder)
    return folder


def _spread(weight: torch.Tensor, width: int, places: torch.Tensor) -> torch.Tensor:
    """Rows of heads (heads x width, inputs) at their places in heads twice as wide, zeros between."""
    heads = weight.view(-1, width, weight.shape[1])
    wide = heads.new_zeros(len(heads), 2 * width, weight.shape[1])
    wide[:, places] = heads
    return wide.flatten(0, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the miniature model with wider heads.")
    parser.add_argument("folder", help="where the model directory goes")
    print(widen_heads(project_root() / MODEL, parser.parse_args().folder))
