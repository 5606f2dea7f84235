"""Multiagent finetuning (Subramaniam et al., ICLR 2025): debate, datasets, finetuning, measures.

The names below are the public ones; each is imported when it is first used, so that a worker process
or a plot does not wait for all the rest.
"""

import logging
import sys
from importlib import import_module
from typing import Any

_PUBLIC = {
    "ConfigError": "config",
    "load_config": "profiles",
    "notebook_config": "setup_cell",
    "studies": "setup_cell",
    "Problem": "tasks.problem",
    "load_problems": "tasks",
    "extract_answer": "grading",
    "is_equivalent": "grading",
    "majority_vote": "debate",
    "Agent": "society",
    "Debate": "debate",
    "Society": "society",
    "base_society": "society",
    "run_debates": "debate",
    "build_finetuning_data": "training.data",
    "finetune": "training.finetuning",
    "Result": "study",
    "open_backend": "backends.opening",
    "open_scorer": "backends.scorer",
    "run_studies": "run",
    "run_study": "run",
    "DebateExplorer": "lab.explorer",
    "DebateStudio": "lab.studio",
    "describe_environment": "provenance",
    "ExportError": "exports",
    "estimate": "estimation",
    "export": "exports",
    "gc": "store.upkeep",
    "list_societies": "society",
    "run_notebooks": "notebooks",
    "verify": "store.upkeep",
    "write_report": "report",
}
_MODULES = {
    "grading",
    "methods",
    "metrics",
    "metrics.diversity",
    "metrics.specialization",
    "metrics.statistics",
    "plots",
    "prompts",
    "reported",
    "store",
    "study",
    "tables",
    "tasks",
}
_PLACES = {place.rpartition(".")[2]: place for place in _MODULES}
__all__ = sorted({*_PUBLIC, *_PLACES})
__version__ = "0.2.0"


if sys.platform == "win32":  # which has neither `resource` nor forked processes
    raise ImportError("maft_lib runs on Linux and macOS: on Windows install it in WSL 2.")

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that a CPU lacks


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"maft_lib.{_PUBLIC[name]}"), name)
    if name in _PLACES:
        return import_module(f"maft_lib.{_PLACES[name]}")
    raise AttributeError(f"maft_lib has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


if "IPython" in sys.modules and (_shell := sys.modules["IPython"].get_ipython()):
    import_module("maft_lib.lab").register(_shell)  # which imports nothing else yet
