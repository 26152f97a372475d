"""Imports run downward only: the floors of the house, held by reading every import."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "p2p_bench.types": 1,
    "p2p_bench.errors": 1,
    "p2p_bench.stats": 1,
    "p2p_bench.hashing": 1,
    "p2p_bench.cache": 1,
    "p2p_bench.resources": 1,
    "p2p_bench.tau": 1,
    "p2p_bench.guidance": 1,
    "p2p_bench.layers": 1,
    "p2p_bench.misread": 1,
    "p2p_bench.raster": 1,
    "p2p_bench.fields": 1,
    "p2p_bench.pinned": 1,
    "p2p_bench.precision": 1,
    "p2p_bench.shared": 1,
    "p2p_bench.weights": 1,
    "p2p_bench.writes": 1,
    "p2p_bench.remote": 1,
    "p2p_bench.signals": 1,
    "p2p_bench.marks": 1,
    "p2p_bench.prompts": 2,
    "p2p_bench.world.scenes": 2,
    "p2p_bench.attention": 3,
    "p2p_bench.controllers": 3,
    "p2p_bench.models": 4,
    "p2p_bench.data": 4,
    "p2p_bench.metrics": 4,
    "p2p_bench.sampling": 5,
    "p2p_bench.inversion": 6,
    "p2p_bench.editing": 7,
    "p2p_bench.editors": 8,
    "p2p_bench.bench": 9,
    "p2p_bench.world.training": 9,
    "p2p_bench.report": 10,
    "p2p_bench.app": 11,
    "hydra_plugins": 11,
    "p2p_bench.__main__": 12,
}
SAME_FLOOR = {
    ("p2p_bench.resources", "p2p_bench.errors"),
    ("p2p_bench.cache", "p2p_bench.errors"),
    ("p2p_bench.cache", "p2p_bench.remote"),
    ("p2p_bench.remote", "p2p_bench.errors"),
    ("p2p_bench.tau", "p2p_bench.errors"),
    ("p2p_bench.tau", "p2p_bench.fields"),
    ("p2p_bench.guidance", "p2p_bench.errors"),
    ("p2p_bench.guidance", "p2p_bench.fields"),
    ("p2p_bench.guidance", "p2p_bench.tau"),
    ("p2p_bench.layers", "p2p_bench.errors"),
    ("p2p_bench.layers", "p2p_bench.fields"),
    ("p2p_bench.types", "p2p_bench.fields"),
    ("p2p_bench.raster", "p2p_bench.errors"),
    ("p2p_bench.raster", "p2p_bench.misread"),
    ("p2p_bench.fields", "p2p_bench.errors"),
    ("p2p_bench.pinned", "p2p_bench.errors"),
    ("p2p_bench.weights", "p2p_bench.errors"),
    ("p2p_bench.controllers", "p2p_bench.attention"),
    ("hydra_plugins", "p2p_bench.app"),
}
PACKAGES = {"p2p_bench", "p2p_bench.world"}
"""Only an `__init__` of these: `p2p_bench` is the lazy front door, `p2p_bench.world` holds two rooms."""


def room_of(module: str) -> str | None:
    """The room a dotted module name lies in; None: outside the project or a bare package."""
    return next((room for room in FLOORS if module == room or module.startswith(room + ".")), None)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, lazy ones inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"line {node.lineno}: write the whole name, a relative import hides the floor"
            )
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def violations(module: str, source: str) -> list[str]:
    """What is wrong with the imports of a module, one line each."""
    room = room_of(module)
    found = []
    for line, name in imports(ast.parse(source)):
        top = name.split(".")[0]
        if top in {"hydra", "omegaconf"} and FLOORS[room or "p2p_bench.app"] < 11:
            found.append(f"{module}:{line} imports {name}: Hydra lives on floor 11 only")
        if top == "pytorch_lightning":
            found.append(f"{module}:{line} imports {name}: import lightning instead")
        other = room_of(name)
        if top not in {"p2p_bench", "hydra_plugins"} or other is None or room is None or other == room:
            continue
        if FLOORS[other] >= FLOORS[room] and (room, other) not in SAME_FLOOR:
            found.append(f"{module}:{line} (floor {FLOORS[room]}) imports {name} (floor {FLOORS[other]})")
    return found


def modules() -> Iterator[tuple[str, Path]]:
    for top in ("p2p_bench", "hydra_plugins"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_imports_run_downward() -> None:
    found = [line for module, path in modules() for line in violations(module, path.read_text())]
    assert not found, "\n".join(found)


def test_every_module_has_a_room() -> None:
    homeless = [module for module, _ in modules() if room_of(module) is None and module not in PACKAGES]
    assert not homeless, f"give these a floor: {homeless}"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("p2p_bench.prompts.words", "from p2p_bench.editing import run_edits"),
        ("p2p_bench.attention.terms", "import p2p_bench.controllers"),
        ("p2p_bench.metrics.clip", "def f():\n    from p2p_bench.models import load"),
        ("p2p_bench.bench.run", "from omegaconf import OmegaConf"),
    ],
)
def test_the_rule_can_fail(module: str, source: str) -> None:
    assert violations(module, source)
