"""What JupyterLab shows: records as HTML, a running study, the explorer and the studio.

papermill loads this module, too (an entry point in pyproject.toml): it warns of each parameter that is
not in a notebook's parameters cell, which for those of a profile is no mistake.
"""

from __future__ import annotations

import logging
from typing import Any

from maft_lib import events

RECORDS = {
    "Config": "maft_lib.config",
    "Debate": "maft_lib.debate",
    "Problem": "maft_lib.tasks.problem",
    "Result": "maft_lib.study",
}  # classes that have a display, and where each is defined
INTERRUPTED = "Interrupted: finished work is kept; run the cell again."


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

    def show(shell: Any, kind: type, error: BaseException, trace: Any, tb_offset: int = 1) -> None:
        """Our errors are sentences, which a traceback would only hide."""
        if kind is KeyboardInterrupt:
            error._render_traceback_ = lambda: [INTERRUPTED]  # type: ignore[attr-defined]
        elif kind.__module__.startswith("maft_lib."):
            error._render_traceback_ = lambda: [f"{kind.__name__}: {error}"]  # type: ignore[attr-defined]
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    events.open_view = open_view
    shell.set_custom_exc((Exception, KeyboardInterrupt), show)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a line of papermill's log is more than the name of a parameter that a profile has."""
    from maft_lib.config import Config

    kind, _, name = record.getMessage().rpartition("unknown parameter: ")
    return not kind or name not in Config.model_fields


logging.getLogger("papermill").addFilter(is_news)


def html(record: Any) -> str:
    """A record as HTML: an object of one of the classes in `RECORDS`."""
    from maft_lib.lab import debates, records

    kind = type(record).__name__
    module: Any = debates if kind == "Debate" else records
    return getattr(module, f"{kind.lower()}_html")(record)
