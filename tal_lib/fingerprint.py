"""A fingerprint of Python code: equal for code that computes the same in the same way, whatever its wording
and layout.

The code is parsed. Parts that cannot change a number are left out: comments, docstrings, formatting, type
annotations, names of local variables, messages of errors and assertions, printed or displayed output, and the
style of imports. Everything else counts. The hashed text is made here and not by `ast.dump`, so that it is
equal in every version of Python.
"""

import ast
import builtins
import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache

# resolve(module, names) -> text for `module.a.b` that does not change when files are moved
Resolve = Callable[[str, list[str]], str]
SHOWN = ("IPython.display", "tal_lib.reports")  # a call of these as a statement only displays something
DROPPED = ("Import", "ImportFrom", "Pass")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")  # parts of a statement that hold statements


def as_named(module: str, path: list[str]) -> str:
    """What an import means: the name that it gives."""
    return ".".join([module, *path])


def fingerprint(sources: str | Iterable[str], resolve: Resolve = as_named) -> str:
    """Hash of a module's source, or of a notebook's code cells in order: 16 hexadecimal digits.

    Source that is not Python (such as an IPython command) is hashed as text.
    """
    return _of_one(sources) if isinstance(sources, str) and resolve is as_named else _of(sources, resolve)


@lru_cache(maxsize=512)  # every training asks for that of the same files
def _of_one(source):
    return _of(source, as_named)


def _of(sources, resolve):
    trees = parse(sources)
    writer = _Writer([tree for tree in trees if isinstance(tree, ast.Module)], resolve)
    text = repr([writer.block(tree.body) if isinstance(tree, ast.Module) else tree for tree in trees])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse(sources: str | Iterable[str]) -> list[ast.Module | str]:
    """Each source as a syntax tree, or as text if it is not Python. Trees are shared: do not change them."""
    return [_parsed(source) for source in ([sources] if isinstance(sources, str) else sources)]


@lru_cache(maxsize=512)  # more than the library has files: each is read for its imports and its fingerprint
def _parsed(source):
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return source


def imports(trees: Iterable[ast.AST]) -> dict[str, tuple[str, str]]:
    """Name in the code -> (module, name in it), or (module, "") if the name is the module itself."""
    names = {}
    for tree in trees:
        names |= _imports_of(tree)
    return names


@lru_cache(maxsize=512)
def _imports_of(tree):
    names = {}
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0],
                    "",
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = (node.module, alias.name)
    return names


def _statements(tree):
    """The statements of a tree in the order of `ast.walk`, which visits every expression too."""
    waiting = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        for block in BLOCKS:
            waiting.extend(getattr(node, block, ()))


@lru_cache(maxsize=512)
def attributes(tree: ast.AST) -> frozenset[tuple[str, str]]:
    """All (name, attribute) of expressions `name.attribute` in the code."""
    return frozenset(
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    )


class _Writer:
    """Turns syntax trees into nested tuples of text, without the parts that do not count."""

    def __init__(self, trees, resolve):
        self.names = imports(trees)
        self.resolve = resolve
        self.fixed = {*dir(builtins), *self.names, *(name for tree in trees for name in _bound_above(tree))}
        self.locals: dict[str, str] | None = None  # of the outermost function: name -> index

    def block(self, body):
        return tuple(part for part in map(self.statement, body) if part is not None)

    def statement(self, node):
        """A statement; None if it does not count."""
        if type(node).__name__ in DROPPED or isinstance(node, ast.Expr) and self._shows(node.value):
            return None
        if isinstance(node, ast.Raise):
            kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            return "Raise", self.write(kind)
        if isinstance(node, ast.Assert):
            return "Assert", self.write(node.test)
        if isinstance(node, ast.AnnAssign):
            if node.value is None:
                return None
            return "Assign", (self.write(node.target),), self.write(node.value)
        if isinstance(node, ast.Assign) and _is_all(node.targets):
            return None
        if isinstance(node, ast.ClassDef):
            return self._class(node)
        if isinstance(node, FUNCTIONS):
            return self._function(node)
        return self.write(node)

    def _shows(self, value):
        if isinstance(value, ast.Constant):
            return True
        called = self._dotted(value.func) if isinstance(value, ast.Call) else None
        return called is not None and (called == "print" or called.startswith(SHOWN))

    def _class(self, node):
        fields = []
        for part in node.body:  # in a dataclass an annotation defines a field, with or without a value
            if isinstance(part, ast.AnnAssign):
                kind = "ClassVar" if "ClassVar" in ast.unparse(part.annotation) else "Field"
                fields.append((kind, self.write(part.target), self.write(part.value)))
            elif (written := self.statement(part)) is not None:
                fields.append(written)
        return (
            "Class",
            node.name,
            *map(self._parts, (node.bases, node.keywords, node.decorator_list)),
            tuple(fields),
        )

    def _function(self, node):
        decorators = self._parts(node.decorator_list)
        outermost = self.locals is None
        name = self._local(node.name)
        if outermost:
            self.locals = dict.fromkeys(_locals(node) - self.fixed, "")
        written = type(node).__name__, name, decorators, self.write(node.args), self.block(node.body)
        if outermost:
            self.locals = None
        return written

    def write(self, node):
        """Any node, list or plain value."""
        if node is None or isinstance(node, str | int | float | bytes | complex | bool) or node is Ellipsis:
            return f"{type(node).__name__} {node!r}"
        if isinstance(node, list):
            return self.block(node) if node and isinstance(node[0], ast.stmt) else self._parts(node)
        if isinstance(node, ast.Constant):
            return self.write(node.value)
        if isinstance(node, ast.Name | ast.Attribute) and (dotted := self._dotted(node)):
            return "Name", dotted
        if isinstance(node, ast.arg):
            return "arg", node.arg
        if isinstance(node, ast.stmt) and isinstance(node, FUNCTIONS + (ast.ClassDef,)):
            return self.statement(node)
        fields = []
        for name, value in ast.iter_fields(node):
            if name in (
                "ctx",
                "kind",
                "type_comment",
                "type_ignores",
                "returns",
                "annotation",
                "type_params",
            ):
                continue
            if value is None or value == []:
                continue
            local = name in ("name", "rest") and isinstance(
                value, str
            )  # name in an except clause or a pattern
            fields.append((name, self._local(value) if local else self.write(value)))
        return type(node).__name__, *fields

    def _parts(self, nodes):
        return tuple(map(self.write, nodes))

    def _local(self, name):
        if not self.locals or name not in self.locals:
            return name
        if not self.locals[name]:
            self.locals[name] = f"·{sum(map(bool, self.locals.values()))}"
        return self.locals[name]

    def _dotted(self, node):
        """`a.b.c` as text, its first name resolved by the imports; None if it does not start with a name."""
        parts = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        if node.id not in self.names:
            return ".".join([self._local(node.id), *parts])
        module, name = self.names[node.id]
        path = [*filter(None, [name]), *parts]
        return self.resolve(module, path) if path else module


def _is_all(targets):
    return len(targets) == 1 and isinstance(targets[0], ast.Name) and targets[0].id == "__all__"


def _bound_above(tree):
    """Names that the module itself binds, outside functions."""
    names, waiting = set(), list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, FUNCTIONS + (ast.ClassDef,)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return names


def _locals(function):
    """Names of a function's local variables, including nested functions, without parameters. No other code
    can use them."""
    names, known = set(), set()
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            names.add(node.rest)
        elif isinstance(node, FUNCTIONS) and node is not function:
            names.add(node.name)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            known.update(node.names)
        elif isinstance(node, ast.ClassDef):
            known.update({node.name} | _bound_above(node))
    return names - known
