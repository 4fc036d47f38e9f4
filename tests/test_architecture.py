"""Who may import whom: arrows point down, there are no circles.

Imports inside functions and module names in strings count too.
"""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from tal_lib.files import REPOSITORY

# Lowest first; a layer may use those before it. docs/architecture.md says what each holds.
LAYERS = [
    "errors",
    "reading",
    "spreadsheet",
    "validation",
    "disk",
    "writing",
    "files",
    "plugins",
    "fingerprint",
    "provenance",
    "process",
    "segments",
    "data",
    "models",
    "training",
    "evaluation",
    "study",
    "exported",
    "export",
    "cost",
    "sweeps",
    "reports",
    "video",
    "cli",
]
# (module, what it names) -> why it may, although the arrow points up or back
ALLOWED = {
    ("tal_lib.fingerprint", "tal_lib.reports"): "a prefix: calls that only show something",
    ("tal_lib.sweeps.local", "tal_lib.reports"): "a prefix: modules that a warm process leaves to the kernel",
    (
        "tal_lib.models.parts.registry",
        "tal_lib.models",
    ): "lists the folder's files when the first model is asked for",
}
REFERENCE = re.compile(r"(tal_lib(?:\.\w+)+)(?::\w+)?")  # as the fork server takes it: "tal_lib.x.y:function"


@cache
def modules():
    """Module name -> file."""
    names = {}
    for path in sorted((REPOSITORY / "tal_lib").rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def running(node):
    """The nodes of a tree, without what stands under `if TYPE_CHECKING:` and so never runs."""
    yield node
    if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(node):
            yield from running(child)


def uses(source, known):
    """Modules of this library that a source names: imports at any depth, strings that are module names."""
    targets = set()
    for node in running(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import: write the whole name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                targets.add(whole if whole in known else node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if match := REFERENCE.fullmatch(node.value):
                targets.add(match[1])
    return {name for name in targets if name in known and name != "tal_lib"}


@cache
def graph():
    """Module -> modules that it uses."""
    return {name: uses(path.read_text(), modules()) for name, path in modules().items()}


def layer(module):
    """The layer of a module: the first name below `tal_lib`."""
    return module.split(".")[1]


def arrows_up(edges, layers):
    """(module, used module) whose arrow points up."""
    return sorted(
        (module, target)
        for module, targets in edges.items()
        for target in targets
        if module not in ("tal_lib", "tal_lib.__main__")
        and layers.index(layer(target)) > layers.index(layer(module))
    )


def circle(edges):
    """A circle of modules, or None."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]


def checked():
    """The graph without what is allowed."""
    return {
        module: {target for target in targets if (module, target) not in ALLOWED}
        for module, targets in graph().items()
    }


def test_every_module_has_a_layer():
    names = {layer(name) for name in modules() if name not in ("tal_lib", "tal_lib.__main__")}
    assert names <= set(LAYERS), "a new package needs a place in LAYERS and in docs/architecture.md"


def test_arrows_point_down():
    up = arrows_up(checked(), LAYERS)
    assert not up, "\n".join(f"{module} uses {target}, which is above it" for module, target in up)


def test_every_exception_is_still_needed():
    present = [arrow for arrow in ALLOWED if arrow[0] in graph()]
    assert not [(module, target) for module, target in present if target not in graph()[module]]


def test_there_are_no_circles():
    assert circle(checked()) is None


def test_models_know_nothing_of_processes_and_provenance():
    """A model is arithmetic on tensors: what it needs of the world comes as arguments."""
    used = {layer(target) for name, targets in graph().items() if ".models" in name for target in targets}
    assert not used & {"provenance", "process", "writing"}


def test_parts_know_no_model():
    for name, targets in checked().items():
        if name.startswith("tal_lib.models.parts"):
            models = {
                target for target in targets if re.fullmatch(r"tal_lib\.models(\.(?!parts\b)\w+)?", target)
            }
            assert not models, f"{name} uses {models}"


def test_the_document_names_every_layer_in_order():
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    named = re.findall(r"^\| `(\w+)`", text, re.M)
    assert named == LAYERS[::-1]


@pytest.mark.parametrize(
    "source",
    [
        "import tal_lib.cli",
        "from tal_lib import cli",
        "from tal_lib.cli import main",
        "def f():\n    from tal_lib.cli import main",
        "server.run('tal_lib.cli:main')",
    ],
)
def test_an_arrow_up_is_seen_however_it_is_written(source):
    known = {"tal_lib", "tal_lib.cli", "tal_lib.data"}
    edges = {"tal_lib.data": uses(source, known)}
    assert arrows_up(edges, LAYERS) == [("tal_lib.data", "tal_lib.cli")]


def test_imports_for_types_alone_are_no_arrows():
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tal_lib.cli import main"
    assert not uses(source, {"tal_lib.cli"})


def test_a_circle_is_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None
