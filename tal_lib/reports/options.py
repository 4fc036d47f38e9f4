"""Options of a model and of its training, with their meaning.

The meaning is the comment beside a field of the dataclass, or the comment lines directly above it. There is
no second list.
"""

import ast
import inspect
import io
import tokenize
from dataclasses import dataclass, fields, is_dataclass
from functools import cache

from tal_lib.models.parts import registry
from tal_lib.training.recipes import recipe_for


@dataclass(frozen=True)
class Option:
    """One option: its group, its values by preset, what it accepts if that is a choice, and its meaning."""

    group: str  # model, post-processing or training
    name: str
    values: dict[str, object]  # preset -> value
    choices: tuple[str, ...]
    meaning: str

    @property
    def default(self) -> object:
        """The value of the preset `compact`."""
        return self.values["compact"]


def options_of(model: str) -> list[Option]:
    """All options that `--set` takes for a model.

    Raises:
        TalError: no such model.
    """
    configs = {preset: registry.config(model, preset) for preset in registry.presets(model)}
    recipes = {preset: recipe_for(model, preset) for preset in configs}
    groups = {
        "model": configs,
        "post-processing": {preset: config.post for preset, config in configs.items()},
        "training": recipes,
    }
    return [
        Option(
            group,
            field.name,
            {preset: getattr(config, field.name) for preset, config in by_preset.items()},
            *described(type(by_preset["compact"])).get(field.name, ((), "")),
        )
        for group, by_preset in groups.items()
        for field in fields(by_preset["compact"])
        if field.name != "post"
    ]


@cache
def described(kind: type) -> dict[str, tuple[tuple[str, ...], str]]:
    """Field of a dataclass → (its choices, its meaning), from the source. Empty where there is no source."""
    meanings = {}
    for base in reversed(kind.__mro__):
        if is_dataclass(base):
            try:
                written = _in_source(inspect.getsource(base))
            except (OSError, SyntaxError, tokenize.TokenError):  # no source, or a class within a function
                continue
            for name, (choices, meaning) in written.items():  # another default keeps the meaning
                before = meanings.get(name, ((), ""))
                meanings[name] = (choices or before[0], meaning or before[1])
    return meanings


def _in_source(source):
    lines = source.splitlines()
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    meanings = {}
    for node in ast.parse(source).body[0].body:
        if not isinstance(node, ast.AnnAssign):
            continue
        beside = [comments[line] for line in range(node.lineno, node.end_lineno + 1) if line in comments]
        above, line = [], node.lineno - 1
        while line in comments and lines[line - 1].lstrip().startswith("#"):
            above.insert(0, comments[line])
            line -= 1
        meanings[ast.unparse(node.target)] = (_choices(node.annotation), " ".join(beside or above))
    return meanings


def _choices(annotation):
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        values = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return tuple(str(ast.literal_eval(value)) for value in values)
    return ()


def differences(options: list[Option], preset: str) -> dict[str, object]:
    """Option → value, where a preset differs from `compact`."""
    return {
        option.name: option.values[preset] for option in options if option.values[preset] != option.default
    }
