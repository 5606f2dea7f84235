"""The set-up cell of a notebook: its config, what it will cost, and what it lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from maft_lib import workers
from maft_lib.config import Config, ConfigError, check_name
from maft_lib.estimation import estimate
from maft_lib.methods import TABLE_1
from maft_lib.profiles import load_config, own_parameters
from maft_lib.wording import shown


class Runs(NamedTuple):
    """Studies of a notebook: methods (none: of the profile), on its task or all, once or L times."""

    methods: Sequence[str] = ()
    all_tasks: bool = False
    once: bool = True
    all_seeds: bool = False
    changes: Mapping[str, Any] = {}


_ITERATED = Runs(("multiagent_ft", "single_agent_ft"), once=False, all_seeds=True)
_UNTRAINED = ("base", "majority", "debate")
_MULTIAGENT = ("majority_ft", "multiagent_ft")
_OF_S = ("vote_equal_budget", *_MULTIAGENT, "single_agent_ft", "multiagent_ft_lora")
_ABLATED = ("_wo_summary", "_wo_critic", "")
# What each notebook runs, for its estimate: tests hold this against what it has run.
RUNS = {
    "00_quickstart": [Runs(["multiagent_ft"])],
    "02_1_multiagent_debate": [Runs(["debate"])],
    "02_3_multiagent_finetuning": [Runs(["multiagent_ft"])],
    "03_3_quantitative_results": [Runs(all_tasks=True, all_seeds=True)],
    "03_4_multiple_iterations": [_ITERATED],
    "04_1_ablations": [
        Runs([f"multiagent_ft{which}" for which in _ABLATED], all_tasks=True),
        Runs(["single_agent_ft", "single_agent_ft_wo_debate"], all_tasks=True),
    ],
    "04_2_diversity": [_ITERATED],
    "04_3_zero_shot": [Runs(TABLE_1), Runs(["multiagent_ft"], all_tasks=True)],
    "C_diversity_metrics": [_ITERATED],
    "D_cooperative": [
        Runs(["debate", "cooperative", "multiagent_ft", "cooperative_ft"], all_tasks=True)
    ],
    "E_additional_comparisons": [
        _ITERATED._replace(methods=[*_ITERATED.methods, "single_agent_ft_hot"]),
        Runs(["base", "debate", "unique_id", "multiagent_ft"]),
    ],
    "F_more_agents": [
        Runs(["debate", *_MULTIAGENT], all_tasks=True),
        Runs(["debate", *_MULTIAGENT], all_tasks=True, changes={"num_agents": 3}),
    ],
    "G_specialization_model": [Runs(["multiagent_ft"], once=False)],
    "H_additional_evaluations": [Runs([*_UNTRAINED, *_MULTIAGENT], all_tasks=True), _ITERATED],
    "R_reviewers_questions": [
        Runs([*_UNTRAINED, *_MULTIAGENT, "single_agent_ft", "no_interaction"]),
    ],
    "S_cost_and_speed": [
        Runs([*_UNTRAINED, *_OF_S, "distilled_society"]),
    ],
    "Z_miniature_model": [Runs(["debate"])],
}


def studies_of(notebook: str, config: Config) -> list[tuple[str, str, Config]]:
    """The studies that a notebook runs with a config: (method, task, config of the study)."""
    studies = []
    for runs in RUNS[notebook]:
        changes = {**runs.changes, **({"num_iterations": 1} if runs.once else {})}
        for seed in config.seeds if runs.all_seeds and config.seeds else [config.seed]:
            of_seed = config.replace(seed=seed, **changes)
            tasks = config.tasks if runs.all_tasks else [config.task]
            studies += [(m, task, of_seed) for task in tasks for m in runs.methods or config.methods]
    return studies


NEEDS = {  # parameter and value: module, and what installs it
    ("backend", "vllm"): ("vllm", "maft_lib[vllm], in an environment of its own"),
    ("backend", "openai"): ("openai", "maft_lib[openai]"),
    ("executor", "ray"): ("ray", "maft_lib[ray]"),
    ("optim", "paged_adamw_8bit"): ("bitsandbytes", "maft_lib[gpu]"),
    ("optim", "adamw_torch_8bit"): ("torchao", "maft_lib[gpu]"),
    ("load_in_4bit", True): ("bitsandbytes", "maft_lib[gpu]"),
    ("report_to", "tensorboard"): ("tensorboard", "tensorboard"),
    ("report_to", "wandb"): ("wandb", "wandb"),
}
READ_BY_MODELS = ("04_2_diversity", "C_diversity_metrics", "R_reviewers_questions")


def missing_packages(config: Config) -> list[str]:
    """A sentence for each package that the parameters need and that is not installed."""
    return [
        f"{name}: {value} needs {module}: pip install {package}."
        for (name, value), (module, package) in NEEDS.items()
        if getattr(config, name) == value and not find_spec(module)
    ]


def missing_models(config: Config, notebook: str | None = None) -> Iterator[str]:
    """A sentence for each model that is not on this machine, with the command that helps."""
    if config.backend == "openai":
        return
    names = [config.base_model]
    if notebook in (None, *READ_BY_MODELS):
        names += [config.scoring_model, config.encoding_model]
    for name in dict.fromkeys(names):
        if not os.path.isdir(name) and (help := _how_to_get(name)):
            yield f"model {name} {help}."


def _how_to_get(name: str) -> str:
    """Nothing, if the model is in a cache or a package that is installed."""
    from huggingface_hub import auth_check, errors, try_to_load_from_cache

    from maft_lib.backends.hub import PACKAGES  # imports transformers

    if name in PACKAGES:
        return "" if find_spec(PACKAGES[name]) else f"is a package: pip install {name}"
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return ""
    try:
        auth_check(name)
    except errors.GatedRepoError:
        return f"is gated: accept its licence on its page, hf auth login, then hf download {name}"
    except errors.HfHubHTTPError:
        return "is not on the hub, or not for you: check the name, or hf auth login"
    except Exception:  # of whichever library could not reach it
        help = f"hf download {name} where there is a network, and copy the cache (docs/gpu.md)"
        return f"is not in the cache, and the hub cannot be reached: {help}"
    return f"is not in the cache: hf download {name}"


def notebook_config(
    namespace: dict[str, Any], notebook: str | None = None, own: Mapping[str, Sequence[Any]] = {}
) -> Config:
    """The config of a notebook, from the `globals()` of its parameters cell and the notebook's name.

    papermill only warns of keys that the notebook does not know, so this looks at all plain values that
    exist when the set-up cell first runs, and raises `ConfigError` for a name that is no parameter.
    None means "as in the profile". `own` has the parameters of this notebook alone and the values that
    each may have, as `range(1, 101)` or `("speaker", "listener")`. Prints what the notebook has of its
    own, what its studies take (`maft.estimate`) and which models are not here; what this machine cannot
    hold and a missing package are refused.
    """
    first_run = "_maft_configured" not in namespace
    for name, allowed in own.items():
        value = namespace.get(name)
        if value not in allowed or type(value) not in set(map(type, allowed)):  # True is not 1 here
            raise ConfigError(f"{name}: Input should be in {allowed}, but it is {shown(value)}.")
    given = {}
    for name, value in namespace.items():
        if name.startswith("_") or name in {"In", "Out", "profile", *own}:
            continue
        if value is None and first_run:
            check_name("parameter", name, Config.model_fields)
        known = first_run or name in Config.model_fields
        if known and isinstance(value, (str, bool, int, float, list, dict)):
            given[name] = value
    config = load_config(namespace.get("profile"), notebook=notebook, **given)
    namespace["_maft_configured"] = True
    here = own_parameters(config, notebook).items()
    if kept := [f"{key}: {value}" for key, value in here if getattr(config, key) == value]:
        print(f"{notebook} has values of its own: {', '.join(kept)}.")
    if config.trust_remote_code:
        named = (config.model_name_or_path, config.scorer, config.encoder)
        models = ", ".join(dict.fromkeys(name for name in named if name))
        print(f"trust_remote_code: code that comes with {models} will be run, with all your rights.")
    if config.device == "cpu" or (config.device == "auto" and not workers.may_have_gpu()):
        workers.warm_up()  # what the rest of the set-up cell imports takes as long
    if first_run:
        expected = estimate(studies_of(notebook, config) if notebook else config)
        print(expected, *missing_models(config, notebook), sep="\n")
        if refused := [*missing_packages(config), *expected.refusals()]:
            raise ConfigError(" ".join(refused))
    return config
