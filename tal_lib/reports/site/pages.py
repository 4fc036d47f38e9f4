"""The pages that are made here: start, tables, figures, reference. All return Markdown for MkDocs."""

import html
import importlib
import posixpath
import re
from pathlib import Path

from tal_lib.reports import webpage
from tal_lib.reports.layout import file_stem
from tal_lib.reports.pictures import description_of

HEADING = re.compile(r"^(#{1,4}) +(.+)$")
NOTEBOOKS = (  # the stems of the study's notebooks without their numbers
    "data",
    "train_evaluate",
    "inference_cost",
    "inference_length",
    "open_set",
    "streams_and_distillation",
    "training_cost",
    "quantization",
    "export",
    "diagnosis",
    "end_to_end",
    "device_check",
    "extraction_on_device",
    "findings",
    "rehearsal",
)


def plain(text: str) -> str:
    """Text that no part of MkDocs can take for HTML: titles go through several templates unescaped."""
    text = text.replace("<", "‹").replace(">", "›").replace("&", "＆").replace('"', "”")
    return " ".join(text.split())


TITLES = {  # of the topics whose folder's name does not tell a reader what it is
    "equal": "equal comparison",
    "factors": "size, annotation and training time",
    "cost": "cost of inference",
    "length": "inference on windows",
    "training": "cost of training",
    "quantization": "lower precision",
    "export": "exported models",
    "open_set": "zero-shot localization",
    "streams": "streams and distillation",
    "prior": "comparison with the prior study",
}


def title(topic: str) -> str:
    """A topic of tables and figures in words."""
    return TITLES.get(topic, words(topic))


def words(name: str) -> str:
    """A file's stem as words: `open_set` → `open set`."""
    return name.replace("_", " ")


def anchor(stem: str) -> str:
    """The anchor of a table on the page of its topic."""
    return file_stem(stem)


def download(topic: str, stem: str, suffix: str) -> str:
    """The place in the site of a table's CSV or LaTeX file."""
    return f"results/readers/{topic}/{file_stem(stem)}{suffix}"


def picture(path: Path) -> str:
    """The place in the site of a figure."""
    return f"figures/{path.parent.name}/{file_stem(path.stem)}{path.suffix}"


def block(markdown: str) -> str:
    """Markdown as one block of HTML, which MkDocs leaves as it is.

    Directives of MkDocs extensions, such as `:::`, have no effect in it.
    """
    body = str(webpage.sanitised(webpage.of_markdown(markdown))).strip()
    return f"<div class='tal-text'>\n{body}\n</div>"


def of_text(source: str) -> str:
    """A Markdown document, whose headings MkDocs may list, and whose text is sanitised HTML."""
    parts, text, fenced = [], [], False
    for line in source.splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else HEADING.match(line)
        if not heading:
            text.append(line)
            continue
        parts += [block("\n".join(text))] if "".join(text).strip() else []
        parts.append(f"{heading[1]} {plain(heading[2].replace('`', ''))}")
        text = []
    parts += [block("\n".join(text))] if "".join(text).strip() else []
    return "\n\n".join(parts) + "\n"


def with_condition(title: str, stem: str) -> str:
    """The title with the condition from the end of the file name: one notebook is shown under several
    conditions."""
    extra = re.sub(r"^\d+_", "", stem)
    notebook = max((name for name in NOTEBOOKS if extra.startswith(name)), key=len, default="")
    condition = extra[len(notebook) :].strip("_").replace("_", ", ")
    return f"{title} ({condition})" if condition else title


def start(data: dict | None, about: Path) -> str:
    """The start page: the explorer, and the findings in short."""
    text = about.read_text(encoding="utf-8") if about.is_file() else ""
    summary = re.search(r"^## In short\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    explorer = (
        "<div id='tal-explorer'></div>\n<noscript>The explorer needs JavaScript. All tables are under "
        "Results.</noscript>\n<script src='assets/tal/results.js'></script>\n"
        "<script src='assets/tal/charts.js'></script>\n<script src='assets/tal/explorer.js'></script>\n"
        if data
        else "There are no runs of data efficiency yet.\n"
    )
    return (
        "---\ntitle: Explorer\nhide: [navigation, toc]\n---\n\n"
        "# Efficient temporal action localization\n\n"
        "Given an untrimmed recording, when does which action happen? Compare the models by accuracy, label "
        "fraction and cost. Most data are real: a phone's motion sensors (hapt), tracked hands (sfinge3d), "
        f"kitchens (50salads), falls (urfall). Two are generated (rendered, synthetic).\n\n{explorer}"
        + (f"\n## In short\n\n{block(summary[1])}\n" if summary else "")
    )


def tables_page(topic: str, paths: list[Path]) -> str:
    """All tables of a topic, each with its caption and links to its CSV and LaTeX files."""
    parts = [f"# Tables: {title(topic)}\n"]
    for path in paths:
        links = " · ".join(
            f"<a href='{topic}/{file_stem(path.stem)}{suffix}'>{name}</a>"
            for suffix, name in ((".csv", "CSV"), (".tex", "LaTeX"))
            if path.with_suffix(suffix).is_file()
        )
        heading = f"## {plain(words(path.stem))} {{#{anchor(path.stem)}}}"
        parts.append(f"{heading}\n\n<p class='tal-links'>{links}</p>\n")
        parts.append(block(path.read_text(encoding="utf-8")) + "\n")
    return "\n".join(parts)


def figures_page(topic: str, paths: list[Path]) -> str:
    """All figures of a topic, each with its caption. All topics in one page would be too many bytes."""
    parts = [f"# Figures: {title(topic)}\n\n<div class='tal-figures'>"]
    for path in paths:
        about = description_of(path) or f"Figure of {title(topic)}: {words(path.stem)}"
        address, text = html.escape(posixpath.relpath(picture(path), "figures")), html.escape(about)
        parts.append(
            f"<figure><a href='{address}'><img loading='lazy' src='{address}' alt='{text}'></a>"
            f"<figcaption>{text}</figcaption></figure>"
        )
    return "\n".join([*parts, "</div>\n"])


def reference(name: str) -> str:
    """The page of a package: what it exports, from the docstrings."""
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", None)
    members = f"\n      members: {list(exported)}" if exported else ""
    return f"# {name}\n\n::: {name}\n    options:\n      show_root_heading: false{members}\n"
