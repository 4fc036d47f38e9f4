"""Texts for readers: plain words of the field, short sentences, and help for every option. Names in code.

Docstrings and comments are not looked at. A value in an f-string counts as one word.
"""

import argparse
import ast
import re
from functools import cache

import nbformat
import pytest

from tal_lib.cli import _parser
from tal_lib.files import REPOSITORY
from tal_lib.reports import results_page
from tal_lib.reports.layout import Layout

LIBRARY = REPOSITORY / "tal_lib"
CODE = ("tal_lib", "tests", "experiments", "examples")
LONGEST = 25  # words of a sentence
VALUE = "VALUE"
DIALECT = re.compile(
    r"share of the (labels|recordings|training)|foretold|never seen|smaller numbers|taught (student|by)|"
    r"whatever the|draw of|turned sensors|so many|so long|so often|one of so|one row a |"
    r"a recording of its own|there is none|is there twice|stands (for|twice)|of another (kind|shape|form)|"
    r"goes on|mend\b|somebody|\bstandings?\b",
    re.IGNORECASE,
)
PER = re.compile(r"\b(?:one|row|kept|many) an? (?!time|day)\w+", re.IGNORECASE)  # "one per class"

# names that do not say what they hold: `detections`, `row`, `message` do
VAGUE = {"found", "one", "mine", "own", "its", "said", "foretold", "standing", "nursery", "kin"}
KEPT = {
    ("tal_lib/sweeps/search.py", "own"),  # a key of grid files
}


@cache
def tree_of(path):
    """The syntax tree of a module, which several tests read."""
    return ast.parse(path.read_text(encoding="utf-8"))


def sentences(text):
    """The sentences of a text in Markdown, without links' targets, pictures and code blocks."""
    text = re.sub(
        r"(?s)```.*?```|<!--.*?-->|<(?:img|source|/?picture)[^>]*>|!?\[[^\]]*\]\([^)]*\.png\)", "\n\n", text
    )
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    blocks = re.split(r"\n\s*\n|\n(?=\s*[-*#|] ?)|\|", text)
    return [part for block in blocks for part in re.split(r"(?<=[.?!])[*`)”]*\s+", " ".join(block.split()))]


def words(sentence):
    """Names in code that follow each other count as one, and so does an interval: `-2.6 [-7.2, +2.1]`."""
    sentence = re.sub(r"(`[^`]+`,? ?)+", "NAMES ", re.sub(r" \[[^\]]*\]", "", sentence))
    return [word for word in sentence.split() if re.search(r"\w", word)]


def problems(text, longest):
    """What is wrong with a text: dialect, and sentences that are too long."""
    dialect = [match[0] for match in DIALECT.finditer(text)]
    return dialect + [
        f"{len(words(part))} words: {part}" for part in sentences(text) if len(words(part)) > longest
    ]


# --help


def parsers(parser=None):
    """Every command with its subcommands."""
    parser = parser or _parser()
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


@pytest.mark.parametrize("parser", parsers(), ids=lambda parser: parser.prog)
def test_help_explains_every_command_and_option_in_plain_words(parser):
    assert parser.description
    texts = [parser.description]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert len(action._choices_actions) == len(action.choices)
            texts += [command.help for command in action._choices_actions]
        else:
            assert action.help, f"{parser.prog}: {action.option_strings or action.dest} has no help"
            texts.append(action.help)
    assert not [problem for text in texts for problem in problems(text, LONGEST)]


# docstrings and comments of options, which the reference and `tal models NAME` show

WITH_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef)


def test_the_reference_and_the_options_say_per():
    hits = []
    for path in sorted(LIBRARY.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        nodes = [node for node in ast.walk(tree_of(path)) if isinstance(node, WITH_DOCSTRINGS)]
        texts = [ast.get_docstring(node) or "" for node in nodes]
        if path.parts[len(LIBRARY.parts)] in ("models", "training"):
            texts += [line.partition("#")[2] for line in source.splitlines()]
        hits += [f"{path.name}: {match[0]}" for text in texts for match in PER.finditer(text)]
    assert not hits
    assert PER.search("kept a recording") and PER.search("one a class") and not PER.search("one per class")


# errors and generated sentences, in the source


def folded(node):
    """The text that an expression makes, with `VALUE` for what is not constant; None if it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(folded(part) or VALUE for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = folded(node.left), folded(node.right)
        return None if left is None and right is None else (left or VALUE) + (right or VALUE)
    return None


def texts_of(tree):
    """(line, text) of the outermost texts of a module. Docstrings are left out."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, WITH_DOCSTRINGS) and node.body and isinstance(node.body[0], ast.Expr)
    }
    todo = [tree]
    while todo:
        node = todo.pop()
        text = folded(node) if isinstance(node, ast.expr) and id(node) not in docstrings else None
        if text is not None:
            yield node.lineno, text
        elif id(node) not in docstrings:
            todo += ast.iter_child_nodes(node)


def errors_of(tree):
    """(line, text) of the arguments of every error that is raised for a person."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("TalError", "require"):
            for part in [*node.args, *(keyword.value for keyword in node.keywords)]:
                text = folded(part)
                if text is not None:
                    yield node.lineno, text


def faults(folder, select, longest):
    """Problems of the texts that `select` takes from the modules of a folder, with their places."""
    return [
        f"{path.relative_to(REPOSITORY)}:{line}: {problem}"
        for path in sorted(folder.rglob("*.py"))
        for line, text in select(tree_of(path))
        if re.search(r"[.,:;]", text)  # else it is a list of names
        for problem in problems(text, longest)
    ]


def test_errors_are_plain_and_short():
    assert faults(LIBRARY, errors_of, LONGEST) == []


def test_generated_captions_and_sentences_are_short():
    assert faults(LIBRARY / "reports", texts_of, LONGEST) == []


@pytest.mark.parametrize("template", [results_page.TEMPLATE, results_page.README], ids=lambda path: path.name)
def test_the_pages_have_short_sentences(template, tmp_path):
    text = results_page.write(Layout(), tmp_path / "page.md", template).read_text(encoding="utf-8")
    assert problems(text, LONGEST) == []


# protocol: as registered; fidelity: rows of layers and options; releases: history
LONG_BY_NATURE = {"protocol.md", "fidelity.md"}
DOCS = sorted(path for path in (REPOSITORY / "docs").rglob("*.md") if path.name not in LONG_BY_NATURE)
DOCS = [path for path in DOCS if path.parent.name != "releases"]
DOCS += [REPOSITORY / name for name in ("CONTRIBUTING.md", "results/README.md", "results/prior/README.md")]


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_the_docs_have_short_sentences(page):
    """A cell of a table may list columns: there, a semicolon ends a part."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^\|.*", lambda row: re.sub(r"[;:] ", ". ", row[0]), text)
    assert problems(text, LONGEST) == []


def test_the_commands_of_make_are_explained_in_plain_words():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    texts = re.findall(r"(?m)^[a-z-]+:.*## (.*)$", makefile)
    assert len(texts) > 10 and not [problem for text in texts for problem in problems(text, LONGEST)]


def texts_of_page(path):
    """What a person reads on a rendered page, without tables and pictures."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("data", {}).get("text/markdown", "")


@pytest.mark.parametrize("page", sorted(Layout().notebooks.glob("*.ipynb")), ids=lambda path: path.stem)
def test_rendered_pages_are_in_the_words_of_the_field(page):
    texts = [*texts_of_page(page)]
    dialect = {match[0].lower() for text in texts for match in DIALECT.finditer(text)}
    assert len(texts) > 3 and dialect <= {"standing"}  # a class of hapt


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('TalError(f"{a}: foretold", remedy="Mend it.")', ["foretold", "Mend"]),
        (f'TalError("{"word " * 26}.")', [f"26 words: {'word ' * 25}word ."]),
        ('TalError("It is short." + f" {b}", remedy="Choose one.")', []),
    ],
)
def test_the_checks_can_fail(source, text):
    """Dialect and a long sentence are seen, also in f-strings and sums."""
    assert [p for _, given in errors_of(ast.parse(source)) for p in problems(given, LONGEST)] == text


# names in code

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NAMED = (*FUNCTIONS, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)


def names_of(tree):
    """(line, name) of the variables, fields, arguments, functions, classes and aliases of a module."""
    for node in ast.walk(tree):
        name = None
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            name = node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.alias):
            name = node.asname
        elif isinstance(node, NAMED):
            name = node.name
        if name:
            yield node.lineno, name


def vague_names(tree):
    return [(line, name) for line, name in names_of(tree) if name.strip("_").lower() in VAGUE]


@pytest.mark.parametrize("folder", CODE)
def test_names_say_what_they_hold(folder):
    modules = {
        path.relative_to(REPOSITORY).as_posix(): tree_of(path)
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
    }
    assert modules
    assert [
        f"{module}:{line}: {name}"
        for module, tree in modules.items()
        for line, name in vague_names(tree)
        if (module, name) not in KEPT
    ] == []


@pytest.mark.parametrize(
    "source",
    [
        "{} = 1",
        "FIRST, (_, *{}) = 1, (2, 3)",
        "self.{} = 1",
        "[{} for {} in rows]",
        "with open(path) as {}: pass",
        "print(({} := 1))",
        "def {}(): pass",
        "def _{}(): pass",
        "class {}: pass",
        "def f(*, {}): pass",
        "lambda *{}: 0",
        "import numpy as {}",
        "try: pass\nexcept OSError as {}: pass",
        "match row:\n case [*{}]: pass",
        "match row:\n case {}: pass",
    ],
)
def test_every_way_to_give_a_vague_name_is_seen(source):
    assert [name.strip("_") for _, name in vague_names(ast.parse(source.replace("{}", "found")))] == ["found"]
    assert [name for _, name in vague_names(ast.parse(source.replace("{}", "FOUND")))]
    assert not vague_names(ast.parse(source.replace("{}", "found_rows")))
