"""The set-up cell of a notebook: what its parameters cell says becomes a config.

Values that the notebook has of its own, and what a study will cost, are printed. Knows nothing of the
cells that follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maft_lib import workers
from maft_lib.arguments import check_kind
from maft_lib.config import Config
from maft_lib.estimation import estimate
from maft_lib.own_parameters import check_own
from maft_lib.profiles import OWN_PARAMETERS, load_config


def notebook_config(
    namespace: dict[str, Any], notebook: str | None = None, own: Mapping[str, Sequence[Any]] = {}
) -> Config:
    """The config of a notebook, from the `globals()` of its parameters cell and the notebook's name.

    papermill injects every key it is given and only warns of those that the notebook does not know,
    so this looks at all plain values that exist when the set-up cell first runs, and raises
    `ConfigError` for a name that is no parameter. `own` has the parameters of this notebook alone, and
    the values that each may have (`own_parameters`).
    None means "as in the profile"; values of its own that the notebook has (`OWN_PARAMETERS` and the
    profile's `notebooks`) are printed, and what one study with the config takes (`maft.estimate`); what
    this machine cannot hold is refused. On a CPU the workers' libraries begin to be imported here.
    """
    check_kind("namespace", namespace, dict, ": globals() of the notebook")
    check_kind("own", own, dict, " of the notebook's own parameters")
    check_own(namespace, own)
    first_run = "_maft_configured" not in namespace
    given = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in {"In", "Out", "profile", *own}
        if isinstance(value, (str, bool, int, float, list, dict))
        if first_run or name in Config.model_fields
    }
    config = load_config(namespace.get("profile"), notebook=notebook, **given)
    namespace["_maft_configured"] = True
    own_here = OWN_PARAMETERS.get(notebook or "", {}) | config.notebooks.get(notebook or "", {})
    kept = [f"{key}: {value}" for key, value in own_here.items() if getattr(config, key) == value]
    if kept:
        print(f"{notebook} has values of its own: {', '.join(kept)}.")
    if config.trust_remote_code:
        named = (config.model_name_or_path, config.scorer, config.encoder)
        models = ", ".join(dict.fromkeys(name for name in named if name))
        print(f"trust_remote_code: code that comes with {models} will be run, with all your rights.")
    if config.device == "cpu" or (config.device == "auto" and not workers.may_have_gpu()):
        workers.warm_up()  # what the rest of the set-up cell imports takes as long
    if first_run:
        _say_what_it_costs(config)
    return config


def _say_what_it_costs(config: Config) -> None:
    """Prints the estimate of one study; refuses what this machine cannot hold."""
    expected = estimate(config)
    print(expected)
    expected.check()
