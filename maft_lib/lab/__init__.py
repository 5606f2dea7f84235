"""What JupyterLab shows: records as HTML, a running study, the explorer and the studio."""

from __future__ import annotations

from typing import Any

from maft_lib import events

RECORDS = {
    "Config": "maft_lib.config",
    "Debate": "maft_lib.debate",
    "Problem": "maft_lib.tasks.problem",
    "Result": "maft_lib.study",
}  # classes that have a display, and where each is defined


def register(shell: Any) -> None:
    """Has IPython show our records as HTML; what draws them is imported with the first one shown."""
    formatter = shell.display_formatter.formatters["text/html"]
    for name, module in RECORDS.items():
        formatter.for_type_by_name(module, name, html)
    events.open_view = open_view


def open_view(studies: Any) -> Any:
    """The live view of studies, None where nobody watches."""
    from maft_lib.lab import live

    return live.open_view(studies)


def html(record: Any) -> str:
    """A record as HTML: an object of one of the classes in `RECORDS`."""
    from maft_lib.lab import debates, records

    kind = type(record).__name__
    module: Any = debates if kind == "Debate" else records
    return getattr(module, f"{kind.lower()}_html")(record)
