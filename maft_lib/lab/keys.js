// Keeps plain keys that are pressed in the studio from JupyterLab's shortcuts: in a list, an arrow would
// go to the next cell, and `d d` would delete this one. JupyterLab leaves alone an element with the
// attribute that is set here. One listener a page; on the window, in the capturing phase, it hears a key
// before JupyterLab does.
if (!window.maftKeys) {
  window.maftKeys = true;
  window.addEventListener("keydown", (event) => {
    if (!event.target.closest?.(".maft-studio")) return;
    const plain = !(event.ctrlKey || event.metaKey || event.altKey);
    event.target.toggleAttribute("data-lm-suppress-shortcuts", plain);
  }, true);
}
