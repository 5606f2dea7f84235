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
    """Has IPython show our records as HTML, and running studies where somebody watches.

    That is where the front end could answer `input()`: JupyterLab, Notebook and VS Code say so with
    every cell that they send; nbclient, and so papermill, nbconvert and nbval, say the contrary.
    """
    formatter = shell.display_formatter.formatters["text/html"]
    for name, module in RECORDS.items():
        formatter.for_type_by_name(module, name, html)

    def open_view(studies: Any) -> Any:
        if not getattr(getattr(shell, "kernel", None), "_allow_stdin", False):
            return None
        from maft_lib.lab.live import LiveView

        return LiveView(studies)

    events.open_view = open_view


def html(record: Any) -> str:
    """A record as HTML: an object of one of the classes in `RECORDS`."""
    from maft_lib.lab import debates, records

    kind = type(record).__name__
    module: Any = debates if kind == "Debate" else records
    return getattr(module, f"{kind.lower()}_html")(record)
