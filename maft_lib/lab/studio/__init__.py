"""One debate, asked for and watched in JupyterLab: `DebateStudio`. Knows no engine."""

from maft_lib.lab.studio.widget import DebateStudio

__all__ = ["DebateStudio"]
