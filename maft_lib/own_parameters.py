"""Parameters that one notebook has beside the config's: checked by what its set-up cell allows.

Each is one of a few values or a whole number of a range. Knows no notebook, nor what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maft_lib.config import Config, ConfigError, check_name
from maft_lib.wording import shown


def check_own(namespace: Mapping[str, Any], own: Mapping[str, Sequence[Any]]) -> None:
    """Raises `ConfigError` for a value of `namespace` that `own` does not allow.

    `own` has the allowed values by name, as `range(1, 101)` or `("speaker", "listener")`. An unknown
    parameter that is None is refused, too, when the set-up cell first runs: `notebook_config` leaves
    None to the profile and would not see it.
    """
    for name, allowed in own.items():
        if not _is_allowed(namespace.get(name), allowed):
            value = shown(namespace.get(name))
            raise ConfigError(f"{name}: Input should be {_wanted(allowed)}, but it is {value}.")
    if "_maft_configured" not in namespace:
        for name, value in namespace.items():
            if value is None and not name.startswith("_"):
                check_name("parameter", name, (*Config.model_fields, *own))


def _is_allowed(value: Any, allowed: Sequence[Any]) -> bool:
    """True is not 1 here, nor is 1.0."""
    return any(type(value) is type(end) for end in (allowed[0], allowed[-1])) and value in allowed


def _wanted(allowed: Sequence[Any]) -> str:
    if isinstance(allowed, range):
        return f"a whole number from {allowed[0]:,} to {allowed[-1]:,}"
    words = " or ".join(map(repr, allowed))
    return f"{words} (with papermill's -p as written here)" if True in allowed else words
