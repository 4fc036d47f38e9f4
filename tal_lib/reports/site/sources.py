"""The source folder of MkDocs: the study's files in their places of the repository, and pages made of them.

Because every file keeps its place, a link between two files of the repository is valid in the site too.
"""

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from tal_lib.files import write_text
from tal_lib.reports import pages as notebooks
from tal_lib.reports.layout import TOPICS, Layout
from tal_lib.reports.site import pages
from tal_lib.reports.site.explorer import explorer_data

STATIC = Path(__file__).parent / "static"
PACKAGES = tuple(
    f"tal_lib.{name}"
    for name in (
        "data",
        "models",
        "segments",
        "training",
        "evaluation",
        "cost",
        "sweeps",
        "reports.tables",
        "video",
        "export",
        "plugins",
        "errors",
    )
)
TUTORIALS = ("own-features", "own-videos", "new-model", "read-results")
GUIDES = ("adding-a-dataset", "adding-a-model", "cluster", "scale")


@dataclass
class Sources:
    """What MkDocs reads.

    Attributes:
        folder: the source folder; navigation: the `nav` of MkDocs.
        trusted: source files that are part of this project; all others are sanitised.
        addresses: file of the repository → address in the site, where they differ.
    """

    folder: Path
    navigation: list = field(default_factory=list)
    trusted: set[str] = field(default_factory=set)
    addresses: dict[str, str] = field(default_factory=dict)

    def page(self, name: str, text: str, *, trusted: bool = False) -> str:
        """Write a source file; returns its name."""
        write_text(self.folder / name, text)
        self.trusted |= {name} if trusted else set()
        return name

    def copy(self, path: Path, name: str) -> str:
        """Copy a file into the source folder; returns its name there."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.folder / name)
        return name


def write_sources(
    folder: Path, layout: Layout, about: Path, docs: Path, packages: tuple[str, ...]
) -> Sources:
    """Write the source folder. The arguments are those of `tal_lib.reports.site.build`."""
    sources = Sources(folder)
    for path in sorted(STATIC.iterdir()):
        sources.copy(path, f"assets/tal/{path.name}")
    data = explorer_data(layout)
    if data:
        sources.page("assets/tal/results.js", f"window.TAL_RESULTS = {as_script(data)};\n")
    results = [
        *([{"Results": _about(sources, about)}] if about.is_file() else []),
        *_tables(sources, layout),
        *_figures(sources, layout),
        *_columns(sources, layout),
    ]
    sections = [
        {"Explorer": sources.page("index.md", pages.start(data, about), trusted=True)},
        {"Results": results},
        {"Notebooks": _notebooks(sources, layout)},
        {"Tutorials": _documents(sources, docs, "tutorials", TUTORIALS)},
        {"Documentation": _documentation(sources, docs)},
        {"API": _reference(sources, packages)},
    ]
    sources.navigation = [section for section in sections if all(section.values())]
    return sources


def as_script(data: dict) -> str:
    """JSON for a script: ASCII, without `NaN`, and without the end of a script element."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")


def _about(sources, about):
    return sources.page("RESULTS.md", pages.of_text(about.read_text(encoding="utf-8")))


def _tables(sources, layout):
    """A page per topic with all tables for readers; CSV and LaTeX are beside each."""
    made = []
    for topic in TOPICS:
        paths = [path for path in layout.reader_tables() if path.parent.name == topic]
        for path in paths:
            for suffix in (".csv", ".tex"):
                if path.with_suffix(suffix).is_file():
                    sources.copy(path.with_suffix(suffix), pages.download(topic, path.stem, suffix))
            address = f"results/readers/{topic}.html#{pages.anchor(path.stem)}"
            sources.addresses[f"results/readers/{topic}/{path.name}"] = address
        if paths:
            name = f"results/readers/{topic}.md"
            made.append({pages.title(topic): sources.page(name, pages.tables_page(topic, paths))})
    return [{"Tables": made}] if made else []


def _figures(sources, layout):
    """A page per topic with all figures."""
    made = []
    for topic in TOPICS:
        paths = [path for path in layout.all_figures() if path.parent.name == topic]
        for path in paths:
            sources.copy(path, pages.picture(path))
        if paths:
            page = sources.page(f"figures/{topic}.md", pages.figures_page(topic, paths))
            made.append({pages.title(topic): page})
    return [{"Figures": made}] if made else []


def _columns(sources, layout):
    path = layout.results / "README.md"
    if not path.is_file():
        return []
    text = pages.of_text(path.read_text(encoding="utf-8"))
    sources.addresses["results/README.md"] = "results/columns.html"
    return [{"What the columns mean": sources.page("results/columns.md", text)}]


def _notebooks(sources, layout):
    made = []
    for path in sorted(layout.notebooks.glob("*.ipynb")):
        content = nbformat.read(path, as_version=4)
        title = pages.plain(pages.with_condition(notebooks.title_of(content, path), path.stem))
        made.append({title: sources.copy(path, f"results/notebooks/{path.name}")})
    return made


def _documents(sources, docs, folder, names):
    made = []
    for name in names:
        path = docs / folder / f"{name}.md"
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            page = sources.page(f"docs/{folder}/{name}.md".replace("/./", "/"), text, trusted=True)
            made.append({_heading(text, path): page})
    return made


def _documentation(sources, docs):
    others = sorted({path.stem for path in docs.glob("*.md")} - {"glossary", *GUIDES})
    decisions = sorted(path.stem for path in docs.glob("decisions/*.md"))
    return [
        *_documents(sources, docs, ".", ("glossary", *GUIDES, *others)),
        *([{"Decisions": _documents(sources, docs, "decisions", decisions)}] if decisions else []),
    ]


def _heading(text, path):
    first = next((line for line in text.splitlines() if line.startswith("# ")), path.stem)
    return pages.plain(first.lstrip("# ").replace("`", ""))


def _reference(sources, packages):
    made = []
    for name in packages:
        page = sources.page(f"reference/{name}.md", pages.reference(name), trusted=True)
        made.append({re.sub(r"^tal_lib\.", "", name): page})
    return made
