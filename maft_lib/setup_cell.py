"""The set-up cell of a notebook: what its parameters cell says becomes a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maft_lib import workers
from maft_lib.config import Config, ConfigError, check_name
from maft_lib.estimation import estimate
from maft_lib.profiles import load_config, own_parameters
from maft_lib.wording import shown


def notebook_config(
    namespace: dict[str, Any], notebook: str | None = None, own: Mapping[str, Sequence[Any]] = {}
) -> Config:
    """The config of a notebook, from the `globals()` of its parameters cell and the notebook's name.

    papermill only warns of keys that the notebook does not know, so this looks at all plain values that
    exist when the set-up cell first runs, and raises `ConfigError` for a name that is no parameter.
    None means "as in the profile". `own` has the parameters of this notebook alone and the values that
    each may have, as `range(1, 101)` or `("speaker", "listener")`. Prints what the notebook has of its
    own and what one study takes (`maft.estimate`); what this machine cannot hold is refused.
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
        expected = estimate(config)
        print(expected)
        expected.check()
    return config
