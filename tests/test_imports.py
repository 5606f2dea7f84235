"""Imports go down: CONTRIBUTING.md lists the rooms, floor by floor, and none imports one above itself.

A room is a top-level module or package of `maft_lib`. Imports inside functions and for types count.
"""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
RULES = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FLOORS = [
    set(re.findall(r"`(\w+)`", floor))
    for floor in re.search(r"Imports go one way(.*?)\n- ", RULES, re.S)[1].split("→")
]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "maft_lib").rglob("*.py")
    if path.parent.name != "maft_lib" or path.stem != "__init__"  # the public names, by string
}


def imported(source):
    """All modules of ours that a module imports, wherever the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{name.name}" for name in node.names)
            yield from {name if name in MODULES else node.module for name in names} & MODULES.keys()


IMPORTS = {name: set(imported(path.read_text(encoding="utf-8"))) for name, path in MODULES.items()}


def room(module):
    return module.split(".")[1]


def floor(name):
    return next(-number for number, rooms in enumerate(FLOORS) if name in rooms)


def test_every_room_stands_on_one_floor():
    listed = sorted(name for rooms in FLOORS for name in rooms)
    assert listed == sorted({room(module) for module in MODULES}) and len(FLOORS) <= 10


def test_no_room_imports_one_above_or_beside_it():
    wrong = {
        (room(module), room(other))
        for module, others in IMPORTS.items()
        for other in others
        if room(other) != room(module) and floor(room(other)) >= floor(room(module))
    }
    assert wrong == set()


def test_no_modules_import_each_other_in_a_circle():
    @cache
    def reached(module):
        trail.append(module)
        assert module not in trail[:-1], trail
        for other in IMPORTS[module] - {module}:
            reached(other)
        trail.pop()

    trail = []
    for module in MODULES:
        reached(module)


def test_imports_in_functions_and_for_types_are_found():
    source = "if TYPE_CHECKING:\n    import maft_lib.run\ndef f():\n    from maft_lib import events\n"
    assert set(imported(source)) == {"maft_lib.run", "maft_lib.events"}
