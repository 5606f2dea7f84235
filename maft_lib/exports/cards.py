"""The cards of an exported study: Markdown with a YAML head that the Hugging Face hub reads.

What models wrote stands in them as JSON inside a fence only, where no line of it can end the fence;
names of models, tasks and methods stand as code, other words of strangers with their marks escaped (a
study that was loaded from an export may hold anything). Knows no checkpoint's weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import DatasetCardData, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import maft_lib
from maft_lib import metrics
from maft_lib.debate import Debate
from maft_lib.exports.agents import Checkpoint, config_of, is_named, public_name
from maft_lib.exports.layout import BASE_MODEL, CARD, DATASETS
from maft_lib.exports.lessons import Dataset, row
from maft_lib.grading import is_correct
from maft_lib.lab.markdown import cell, plain
from maft_lib.metrics.statistics import standard_error
from maft_lib.plots import LABELS
from maft_lib.study import Result
from maft_lib.training.finetuning import training_log

CITATION = """\
@inproceedings{subramaniam2025multiagent,
  title     = {Multiagent Finetuning: Self Improvement with Diverse Reasoning Chains},
  author    = {Subramaniam, Vighnesh and Du, Yilun and Tenenbaum, Joshua B. and Torralba, Antonio and
               Li, Shuang and Mordatch, Igor},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2025},
  url       = {https://llm-multiagent-ft.github.io}
}"""
DEBATE = ("num_agents", "num_rounds", "summarize", "temperature", "top_p", "max_tokens", "dtype")
TRAINING = (
    *("num_iterations", "w", "critic_loss_on", "train_from", "learning_rate", "critic_learning_rate"),
    *("num_train_epochs", "critic_num_train_epochs", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "weight_decay", "lr_scheduler_type", "max_grad_norm", "optim"),
)
# What a training says of itself beside the settings in Hugging Face's words
OWN = (
    *("loss_on", "lora_rank", "lora_alpha", "load_in_4bit", "dpo_beta", "nproc_per_node"),
    "effective_batch_size",
)
LORA = ("lora_rank", "lora_alpha", "lora_learning_rate", "load_in_4bit")
TAGS = ["multiagent-finetuning", "self-improvement", "debate"]


def write_cards(
    result: Result, datasets: list[Dataset], selected: list[Checkpoint], folder: Path
) -> None:
    """The cards of the run, of its datasets and of each checkpoint."""
    shared = _shared(result)
    lessons = [_lesson(result, checkpoint, datasets) for checkpoint in selected]
    run = {
        **shared,
        "head": _dataset_head(f"{shared['label']} on {shared['task']}", datasets, f"{DATASETS}/"),
        "parameters": _parameters(result),
        "costs": _costs(result),
        "datasets": _sizes(datasets),
        "agents": _agents(result, selected, lessons),
        "preferred": "dpo_beta" in _parameters(result),
        "loads": next((d.config_name for d in datasets if any(d.splits.values())), None),
        "first": selected[0] if selected else None,
    }
    _render("run.md", folder / CARD, run)
    if datasets:
        data = {**run, "head": _dataset_head(f"{shared['label']}, finetuning data", datasets)}
        _render("datasets.md", folder / DATASETS / CARD, {**data, "example": _example(datasets)})
    for checkpoint, lesson in zip(selected, lessons):
        _render(
            "agent.md", folder / checkpoint.folder / CARD, shared | _agent(result, checkpoint, lesson)
        )


def _render(template: str, path: Path, values: dict[str, Any]) -> None:
    environment = Environment(  # Markdown: the filters make text of foreign words  # nosec B701
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": cell, "plain": plain, "quoted": json.dumps}
    path.write_text(environment.get_template(template).render(values), encoding="utf-8")


def _shared(result: Result) -> dict[str, Any]:
    """What every card says."""
    config = config_of(result)
    return {
        "version": maft_lib.__version__,
        "method": result.method,
        "label": LABELS.get(result.method, result.method).removesuffix(" (ours)"),
        "task": result.task,
        "eval_task": config.eval_task or result.task,
        "base": public_name(config.model_name_or_path),
        "base_folder": config.model_name_or_path if is_named(config) else BASE_MODEL,
        "seed": config.seed,
        "num_train": len(result.train_ids),
        "num_eval": len(result.eval_ids),
        "sources": sorted({d.problem.source or "unknown" for d in _debates(result)}),
        "note": result.note,
        "hosted": config.backend == "openai",
        "scores": _scores(result),
        "citation": CITATION,
    }


def _debates(result: Result) -> list[Debate]:
    return [debate for part in (*result.training, *result.evaluations) for debate in part]


def _scores(result: Result) -> str:
    """Accuracy with its standard error after each iteration, as a table."""
    rows = [
        {
            "iteration": run.iteration,
            "accuracy (%)": f"{run.accuracy:.1f} ± {run.standard_error:.1f}",
            "first answers (%)": f"{run.first_answers:.1f}",
            "last answers (%)": f"{run.last_answers:.1f}",
            "unreadable (%)": f"{run.unreadable:.1f}",
            "problems": run.problems,
        }
        for run in metrics.accuracy(result.frame).itertuples()
    ]
    return _table(pd.DataFrame(rows))


def _costs(result: Result) -> str:
    return _table(metrics.counts(result.costs).map("{:,}".format))


def _table(frame: pd.DataFrame) -> str:
    return frame.to_markdown(index=False, disable_numparse=True)


def _parameters(result: Result) -> dict[str, Any]:
    """The parameters that matter to what was done."""
    config = config_of(result)
    names = [*DEBATE, *(TRAINING if result.data else ())]
    names += [*(LORA if result.data and config.lora_rank else ())]
    names += ["dpo_beta"] if result.method == "multiagent_ft_dpo" else []
    return {name: getattr(config, name) for name in names}


# Datasets


def _dataset_head(name: str, datasets: list[Dataset], prefix: str = "") -> str:
    """The YAML by which `load_dataset` finds every agent's data; files without a row cannot be read."""
    filled = [(dataset, _filled(dataset)) for dataset in datasets]
    configs = [
        {
            "config_name": dataset.config_name,
            "data_files": [
                {"split": split, "path": f"{prefix}{dataset.folder}/{split}.jsonl"} for split in splits
            ],
        }
        for dataset, splits in filled
        if splits
    ]
    known: dict[str, Any] = {"configs": configs} if configs else {}
    card = DatasetCardData(pretty_name=name, task_categories=["text-generation"], tags=TAGS, **known)
    return str(card.to_yaml())


def _filled(dataset: Dataset) -> list[str]:
    return [split for split, examples in dataset.splits.items() if examples]


def _sizes(datasets: list[Dataset]) -> str:
    """How many examples each dataset has, by split."""
    rows = [
        {
            "iteration": dataset.iteration,
            "agent": dataset.agent,
            **{split: str(len(examples)) for split, examples in dataset.splits.items()},
        }
        for dataset in datasets
    ]
    return _table(pd.DataFrame(rows).fillna("")) if rows else ""


def _example(datasets: list[Dataset]) -> str:
    """One row as JSON: strings are on one line each, so none of them can end the fence around it."""
    examples = [e for dataset in datasets for part in dataset.splits.values() for e in part]
    return json.dumps(row(examples[0]), indent=1) if examples else ""


# Agents


def _lesson(result: Result, checkpoint: Checkpoint, datasets: list[Dataset]) -> Dataset | None:
    """What a checkpoint learned from.

    Societies are counted from the last, which learned from the last data: a distilled one has no
    society in the result for the data before.
    """
    iteration = len(result.data) - (len(result.societies) - 1 - checkpoint.society)
    name = checkpoint.agents[0]
    return next((d for d in datasets if (d.iteration, d.agent) == (iteration, name)), None)


def _agents(result: Result, selected: list[Checkpoint], lessons: list[Dataset | None]) -> str:
    """A row per checkpoint: who uses it, what it was trained on, and how that ended."""
    rows = []
    for checkpoint, lesson in zip(selected, lessons):
        about = _agent(result, checkpoint, lesson)
        rows.append(
            {
                "folder": f"[`{checkpoint.folder}`]({checkpoint.folder})",
                "used as": plain(", ".join(checkpoint.agents)),
                "examples": f"{about['num_examples']:,}",
                "training tokens": about["num_tokens"],
                "final loss": about["final_loss"],
                "seed": plain(about["settings"]["seed"]),
            }
        )
    return _table(pd.DataFrame(rows)) if rows else ""


def _agent(result: Result, checkpoint: Checkpoint, lesson: Dataset | None) -> dict[str, Any]:
    """What only the card of this agent says."""
    log = training_log(checkpoint.source)
    own = {name: log[name] for name in OWN if log.get(name) is not None}
    adapter = "lora_rank" in own
    return {
        "head": _model_head(result, adapter),
        "agent": checkpoint.agents[0],
        "agents": checkpoint.agents,
        "iteration": checkpoint.iteration,
        "folder": checkpoint.folder,
        "adapter": adapter,
        "settings": {**log["settings"], **own},
        "stopped": log.get("stopped"),
        "start": _start(result, checkpoint),
        "lesson": lesson.folder if lesson else None,
        "num_examples": log["num_examples"],
        "num_tokens": "unknown" if log["num_tokens"] is None else f"{log['num_tokens']:,}",
        "final_loss": _final_loss(log),
        "own_scores": _own_scores(result, checkpoint),
    }


def _model_head(result: Result, adapter: bool) -> str:
    """The YAML of a model card; only a name on the hub may stand there as the base model."""
    config = config_of(result)
    on_hub = is_named(config) and config.backend != "openai"
    named: dict[str, Any] = {"base_model": config.model_name_or_path} if on_hub else {}
    library = "peft" if adapter else "transformers"
    card = ModelCardData(library_name=library, pipeline_tag="text-generation", tags=TAGS, **named)
    return str(card.to_yaml())


def _start(result: Result, checkpoint: Checkpoint) -> str:
    """Where training started; STaR starts every round from the base model."""
    again = result.method == "star" or config_of(result).train_from == "base"
    return "the base model" if again or checkpoint.society <= 1 else "the agent of the iteration before"


def _final_loss(log: dict) -> str:
    """Mean training loss of the last epoch, nats per token."""
    last = len(log["losses"]) // log["settings"].get("num_train_epochs", 1)
    return f"{sum(log['losses'][-last:]) / last:.4f}" if last else "unknown"


def _own_scores(result: Result, checkpoint: Checkpoint) -> str:
    """How often each agent that uses a checkpoint is right: first answers, and critics' last ones."""
    society, debates = result.societies[checkpoint.society], result.evaluations[checkpoint.society]
    roles = [("first answer", a.name, n, 0) for n, a in enumerate(society.generators)]
    if len(debates[0].turns[0]) > 1:
        roles += [("last answer", a.name, n, -1) for n, a in enumerate(society.critics)]
    rows = []
    for answer, name, n, number in roles:
        if name in checkpoint.agents:
            right = [is_correct(debate.answers[n][number], debate.problem) for debate in debates]
            percent = f"{100 * sum(right) / len(right):.1f} ± {100 * standard_error(right):.1f}"
            rows.append({"agent": plain(name), "what": answer, "accuracy (%)": percent})
    return _table(pd.DataFrame(rows)) if rows else ""
