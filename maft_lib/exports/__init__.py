"""A finished study as a folder that others can read, load and upload; and back. Knows no engine.

`export` writes, and `load_export` reads again:

    README.md               the card of the run, and of its datasets
    config.yml              every parameter, without the places of the machine that it ran on
    prompts.yml             what the agents are asked
    scores.csv, costs.csv   the frames of the result
    debates/iteration-l/    eval.jsonl, of the agents after l iterations; train.jsonl, behind dataset l
    datasets/               a Hugging Face dataset: iteration-l/<agent>/ is what the agent learned from
    agents/iteration-l/     <agent>/: what came of it, a whole model or an adapter, each with its card
    agents/base/            the base model, where it has no name on the hub
    result.json             who was who; SHA256SUMS: what an undamaged copy holds
"""

from maft_lib.exports.layout import ExportError
from maft_lib.exports.loading import load_export
from maft_lib.exports.writing import export

__all__ = ["ExportError", "export", "load_export"]
