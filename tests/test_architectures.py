"""Tiny random models of the architectures in the table of `docs/engines.md`.

Their text is what a plain loop writes, in a batch as alone, or they are refused by name.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from maft_lib.backends import BackendError, Sampling, decoding, hub
from maft_lib.backends.rendering import tokenize

SMALL = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "attention_hidden_size", "lru_width"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "shared_intermediate_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads", "n_mamba_heads"), 2),
    **dict.fromkeys(("head_dim", "linear_key_head_dim", "linear_value_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_d_head", "mamba_num_heads", "mamba_head_dim"), 8),
    **dict.fromkeys(
        ("mamba_d_state", "ssm_state_size", "state_size", "kv_lora_rank", "q_lora_rank"), 8
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("n_group", "topk_group", "n_groups", "mamba_n_groups", "num_dense_layers"), 1),
    **dict.fromkeys(("sliding_window", "attention_window_size", "attention_chunk_size"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "time_step_rank"), 4),
    "mamba_d_ssm": 64,
    "max_position_embeddings": 256,
    "vocab_size": 458,
}
HYBRID = ["mamba", "attention", "mamba", "attention"]
MLA = {"num_key_value_heads": 4}
OWN = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "deepseek_v2": MLA,
    "deepseek_v3": MLA,
    "falcon": {"head_dim": None},
    "gemma3": {"text_config": {"head_dim": 8}},
    "granitemoehybrid": {"layer_types": HYBRID},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "mamba", "moe"]},
}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
PROMPTS = ["1+2", "What is the result of 3+4*5+2-1*6? Make sure to", "12", "Tom has 3 coins."]
TABLE = Path(__file__).parents[1] / "docs" / "engines.md"


def listed():
    """(model_type, how it is decoded) of the table."""
    rows = [line.split("|")[1:-1] for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    rows = [row for row in rows if len(row) == 2 and row[0].strip("` ") in ("tested", "refused")]
    return [(name.strip("` "), how.strip("` ")) for how, names in rows for name in names.split(",")]


def tiny(name, folder, tokenizer):
    """A random model whose draws differ from step to step, and of which many tokens end a text."""
    default, own = CONFIG_MAPPING[name](), OWN.get(name, {})
    sizes = {key: value for key, value in SMALL.items() if hasattr(default, key)} | own
    if "text_config" in own:
        sizes = {"text_config": SMALL | own["text_config"], "mm_tokens_per_image": 4}
        sizes["vision_config"] = VISION | {"image_size": 16, "patch_size": 8}
    sizes = {key: value for key, value in sizes.items() if value is not None}
    torch.manual_seed(0)
    ids = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**sizes, **ids))
    for weights in model.parameters():
        if weights.dim() >= 2:
            weights.data.normal_(0, 0.25)
    model.generation_config.eos_token_id = [1, *range(100, 458, 7)]
    model.save_pretrained(folder)
    for file in Path(tokenizer).iterdir():
        if "token" in file.name or file.suffix == ".jinja":
            shutil.copy(file, folder)
    return hub.Model(str(folder), hub.identity(str(folder)), "float32", "cpu")


@torch.inference_mode()
def by_hand(model, ids, temperature, seed, stops, limit=12):
    """What a loop over whole texts writes, without a batch and without a cache."""
    uniforms, written = np.random.default_rng(seed).random(limit), []
    for uniform in torch.from_numpy(uniforms):
        logits = model(torch.tensor([ids + written]), use_cache=False).logits[:, -1].float()
        written.append(int(decoding.draw(logits, temperature, 1.0, uniform[None])[0]))
        if written[-1] in stops:
            break
    return written


@pytest.mark.parametrize("name, how", listed())
@pytest.mark.filterwarnings("ignore")
def test_an_architecture_is_decoded_right_or_refused(name, how, tmp_path, model):
    small, seeds = tiny(name, tmp_path, model), range(len(PROMPTS))
    if how == "refused":
        with pytest.raises(BackendError, match=rf"\({name}\) does not write in a batch"):
            decoding.decode(small, PROMPTS, Sampling(), seeds)
        return
    loaded, tokenizer = decoding.cached_model(small), hub.load_tokenizer(small.folder)
    for temperature in (0.0, 1.0):
        drawn = Sampling(temperature, 1.0, 12)
        batch = decoding.decode(small, PROMPTS, drawn, seeds)
        alone = [decoding.decode(small, [p], drawn, [i])[0] for i, p in enumerate(PROMPTS)]
        assert batch == alone
        stops = set(loaded.generation_config.eos_token_id)
        for i, prompt in enumerate(PROMPTS):
            ids = by_hand(loaded, tokenize(tokenizer, prompt), temperature, i, stops)
            text = tokenizer.decode(ids[: len(ids) - (ids[-1] in stops)], skip_special_tokens=True)
            assert (batch[i].text, batch[i].num_completion_tokens) == (text, len(ids))
    assert len({completion.num_completion_tokens for completion in batch}) > 1


def test_the_table_is_long_enough():
    names = [name for name, _ in listed()]
    assert len(names) == len(set(names)) >= 25
