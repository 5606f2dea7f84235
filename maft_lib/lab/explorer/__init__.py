"""A browser of finished debates for JupyterLab. Shows what was said; runs no debate and no model."""

from maft_lib.lab.explorer.widget import DebateExplorer

__all__ = ["DebateExplorer"]
