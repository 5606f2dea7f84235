"""Imports go one way: the list in CONTRIBUTING.md names every module, and none imports to its left."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
RULES = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ORDER = re.findall(r"`(\w+)`", re.search(r"Imports go one way(.*?`wording`)\.", RULES, re.S)[1])
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "maft_lib").rglob("*.py")
}
del MODULES["maft_lib"]  # the public names, each imported when it is first used
INTERFACE = "maft_lib.backends"  # the `__init__` alone, which stands below the engines


def imported(nodes):
    """Modules of ours that are imported with a module: not inside functions, nor for types alone."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{name.name}" for name in node.names)
            yield from {name if name in MODULES else node.module for name in names} & MODULES.keys()
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ):
            yield from imported(ast.iter_child_nodes(node))


def place(module):
    """How far to the right a module stands."""
    return ORDER.index("progress") - 0.5 if module == INTERFACE else ORDER.index(module.split(".")[1])


def against_the_order(module, source):
    own = module.split(".")[1]
    others = (name for name in imported([ast.parse(source)]) if name.split(".")[1:2] != [own])
    return {name for name in others if place(name) < place(module)}


def test_the_list_names_every_module_once():
    assert sorted(ORDER) == sorted({name.split(".")[1] for name in MODULES})


def test_no_module_imports_one_to_its_left():
    found = {m: against_the_order(m, path.read_text(encoding="utf-8")) for m, path in MODULES.items()}
    assert {module: wrong for module, wrong in found.items() if wrong} == {}


def test_the_search_finds_what_goes_the_other_way():
    source = "from maft_lib import studies\nif x:\n    from maft_lib.backends import Request, hub\n"
    assert against_the_order("maft_lib.nodes", source) == {"maft_lib.run", "maft_lib.backends.hub"}
    lazy = "if TYPE_CHECKING:\n    import maft_lib.run\ndef f():\n    import maft_lib.run\n"
    assert against_the_order("maft_lib.nodes", lazy) == set()
