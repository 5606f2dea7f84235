"""Keeps plain keys that are pressed in our widgets from JupyterLab's shortcuts. Knows no debates.

Wherever the focus is in a notebook, unless one can write there, JupyterLab takes arrow keys and letters
for commands on cells: in a drop-down list, too, an arrow would go to the next cell, and `d d` would
delete this one. It leaves alone an element with the attribute that is set here. Keys
with Ctrl, Cmd or Alt stay shortcuts, and Tab was never one.
"""

from __future__ import annotations

import ipywidgets as widgets

# One listener a page; on the window, in the capturing phase, it hears a key before JupyterLab does.
_SCRIPT = """
if (!window.maftKeys) {
  window.maftKeys = true;
  window.addEventListener("keydown", (event) => {
    if (!event.target.closest?.(".maft-explorer, .maft-studio")) return;
    const plain = !(event.ctrlKey || event.metaKey || event.altKey);
    event.target.toggleAttribute("data-lm-suppress-shortcuts", plain);
  }, true);
}
"""


def own_keys() -> widgets.Output:
    """A widget that shows nothing; on a page with it, our widgets get the keys pressed in them."""
    script = {
        "output_type": "display_data",
        "data": {"application/javascript": _SCRIPT},
        "metadata": {},
    }
    return widgets.Output(outputs=(script,), layout=widgets.Layout(display="none"))
