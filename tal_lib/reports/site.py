"""`make site`: notebooks, results, tables and figures as a static site, also for offline use and phones."""

import base64
import hashlib
import html
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat

from tal_lib.errors import TalError
from tal_lib.files import work_folder, write_text
from tal_lib.reports import pages, webpage
from tal_lib.reports.layout import TOPICS, Layout
from tal_lib.writing import claim, staged

PAGES = ".tal-site.json"  # lists the site's files
HERE = work_folder()  # the study's folder, for the defaults

STYLE = (
    webpage.STYLE
    + """
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:14px;border-bottom:1px solid #ddd;
padding-bottom:.5rem}
nav .here{color:#777}a{color:#0b5394}main{overflow-wrap:break-word}.wide{overflow-x:auto}
.list{list-style:none;padding:0}.list li{margin:.9rem 0}.list p{margin:.1rem 0;color:#555;font-size:15px}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(16rem,1fr));gap:1rem}
.figures figure{margin:0}
figcaption{font-size:13px;color:#555}
.text td:not([style]),.text th:not([style]){text-align:left;white-space:normal;overflow-wrap:anywhere}"""
)


PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,([A-Za-z0-9+/=\s]+)$")


@dataclass(frozen=True)
class Page:
    """One page of the site."""

    name: str  # of its file, without suffix
    title: str
    about: str  # the first sentence of its text
    body: str


def build(
    target: str | Path,
    results: str | Path = HERE / "results",
    figures: str | Path = HERE / "figures",
    about: str | Path = HERE / "RESULTS.md",
) -> list[Path]:
    """Write a new site into a folder. Returns the paths of the pages, the index first.

    Pictures are separate files. Equal pictures share a file.

    Raises:
        TalError: there are no rendered notebooks, or the folder holds something other than an earlier site.
    """
    target, layout = Path(target), Layout(results, figures)
    notebooks = sorted(layout.notebooks.glob("*.ipynb"))
    if not notebooks:
        raise TalError("no rendered notebooks", where=layout.notebooks, remedy="Run `tal report` first.")
    claim(target)
    with staged(target, PAGES, "an earlier site") as folder:
        written = _write(folder, notebooks, layout, Path(about))
    return [target / path.relative_to(folder) for path in written]


def _write(target, notebooks, layout, about):
    (target / "pictures").mkdir()
    names = {path.name: f"{path.stem}.html" for path in notebooks} | {"RESULTS.md": "results.html"}
    made = [
        _document(about, "results"),
        *(_notebook(path, target) for path in notebooks),
        _tables(layout),
        _figures(layout, target),
        _document(layout.results / "README.md", "columns"),
    ]
    made = [page for page in made if page]
    written = [
        write_text(
            target / "index.html",
            _whole("Efficient temporal action localization", _index(made, about, layout), made, names),
        )
    ]
    written += [
        write_text(target / f"{page.name}.html", _whole(page.title, page.body, made, names, page))
        for page in made
    ]
    write_text(target / "style.css", STYLE)
    return written


def _notebook(path, target):
    content = nbformat.read(path, as_version=4)
    soup = webpage.of_notebook(content)
    for image in soup.select("img[src^='data:image/']"):
        match = PICTURE.match(image["src"])
        if not match:
            continue  # another kind of picture: removed later, like all foreign pictures
        raw = base64.b64decode(match[2])
        name = f"pictures/{hashlib.sha256(raw).hexdigest()[:16]}.{match[1]}"
        (target / name).write_bytes(raw)
        image["src"], image["loading"], image["alt"] = name, "lazy", image.get("alt") or "figure"
    title = pages.title_of(content, path)
    return Page(
        path.stem, _with_condition(title, path.stem), _first_sentence(content.cells[0].source), str(soup)
    )


def _with_condition(title, stem):
    """The title with the condition from the end of the file name: one notebook is shown under several
    conditions."""
    extra = re.sub(r"^\d+_", "", stem)
    known = {
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
        "findings",
    }
    notebook = max((name for name in known if extra.startswith(name)), key=len, default="")
    condition = extra[len(notebook) :].strip("_").replace("_", ", ")
    return f"{title} ({condition})" if condition else title


def _first_sentence(markdown):
    text = " ".join(line for line in markdown.splitlines() if not line.startswith("#")).strip()
    return re.split(r"(?<=[.?!])\s", re.sub(r"[`*]", "", text), maxsplit=1)[0]


def _document(path, name):
    if not Path(path).is_file():
        return None
    source = Path(path).read_text(encoding="utf-8")
    title = source.splitlines()[0].lstrip("# ").strip()
    body = webpage.of_markdown(source)
    return Page(name, title, _first_sentence(source), f"<div class=text>{body}</div>")


def _tables(layout):
    """The page of all tables for readers with their captions, by topic."""
    parts, jumps = [], []
    for topic in TOPICS:
        paths = [path for path in layout.reader_tables() if path.parent.name == topic]
        if not paths:
            continue
        names = [html.escape(path.stem) for path in paths]
        jumps.append(
            f"<p><b>{_words(topic)}</b>: "
            + " · ".join(f"<a href='#{name}'>{name}</a>" for name in names)
            + "</p>"
        )
        for path, name in zip(paths, names, strict=True):
            parts.append(
                f"<h2 id='{name}'>{name}</h2>{webpage.of_markdown(path.read_text(encoding='utf-8'))}"
            )
    if not parts:
        return None
    body = "<h1>All tables</h1>" + "".join(jumps) + "".join(parts)
    return Page("tables", "All tables", "Every table for readers, with its caption.", body)


def _figures(layout, target):
    """The page of all figures, by topic."""
    parts = []
    for topic in TOPICS:
        shown = [path for path in layout.all_figures() if path.parent.name == topic]
        for path in shown:
            shutil.copyfile(path, target / "pictures" / path.name)
        drawn = "".join(
            f"<figure><a href='{address}'><img loading=lazy src='{address}' alt='{words}'></a>"
            f"<figcaption>{words}</figcaption></figure>"
            for address, words in (
                (html.escape(f"pictures/{path.name}"), html.escape(_words(path.stem))) for path in shown
            )
        )
        parts.append(f"<h2>{_words(topic)}</h2><div class=figures>{drawn}</div>" if shown else "")
    if not any(parts):
        return None
    return Page(
        "figures",
        "All figures",
        "Every figure, as drawn from the tables.",
        "<h1>All figures</h1>" + "".join(parts),
    )


def _words(name):
    return name.replace("_", " ")


def _index(made, about, layout):
    """The start page: a summary, the learning curves, and links to all pages."""
    text = Path(about).read_text(encoding="utf-8") if Path(about).is_file() else ""
    summary = re.search(r"^## In short\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    short = str(webpage.of_markdown(summary[1])) if summary else ""
    curve = next(
        (path for path in layout.all_figures("data_efficiency_*") if "validation" not in path.stem),
        None,
    )
    if curve:
        short += (
            f"<p><img src='pictures/{html.escape(curve.name)}' alt='avg mAP by share of the labelled "
            "recordings' "
            "style='max-width:36rem;width:100%'></p>"
        )
    items = "".join(
        f"<li><a href='{page.name}.html'>{html.escape(page.title)}</a><p>{html.escape(page.about)}</p></li>"
        for page in made
    )
    return (
        "<h1>Efficient temporal action localization</h1><p>Given an untrimmed recording, when does which "
        "action happen? How good is "
        f"each model when labels are few, and what does it cost to train and to run?</p>{short}<h2>All "
        f"pages</h2><ul class=list>{items}"
        "</ul>"
    )


def _whole(title, body, made, names, here=None):
    soup = webpage.sanitised(body)
    for table in soup.select("table"):
        if "wide" not in (table.parent.get("class") or ()):
            table.wrap(soup.new_tag("div", attrs={"class": "wide"}))
    for link in soup.select("a[href]"):
        address = _inside(link["href"], names)
        if address:
            link["href"] = address
        else:
            link.unwrap()
    for image in soup.select("img[src^='figures/']"):
        image["src"] = _inside(image["src"], names)
    place = made.index(here) if here else -1
    steps = [
        ("index", "Overview"),
        *([(made[place - 1].name, "← " + made[place - 1].title)] if place > 0 else []),
        *([(made[place + 1].name, made[place + 1].title + " →")] if place + 1 < len(made) else []),
    ]
    links = "".join(f"<a href='{name}.html'>{html.escape(text)}</a>" for name, text in steps)
    return (
        f"<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>{html.escape(title)}</title>"
        "<meta name=viewport content='width=device-width, initial-scale=1'><link rel=icon href='data:,'>"
        "<link rel=stylesheet "
        f"href=style.css></head><body><nav>{links}</nav><main>{soup}</main></body></html>\n"
    )


def _inside(address, names):
    """The address in the site for a link to a file of the repository; None if the site lacks that file."""
    if (
        re.match(r"[a-z]+:|#", address)
        or address.split("#")[0].endswith(".html")
        or address.startswith("pictures/")
    ):
        return address
    name = Path(address.split("#")[0]).name
    if name in names:
        return names[name]
    if address == "results/README.md":
        return "columns.html"
    if re.fullmatch(r"figures/[a-z_]+/[^/]+\.png", address):
        return f"pictures/{name}"
    if re.fullmatch(r"results/readers/[a-z_]+/[^/]+\.md", address):
        return f"tables.html#{Path(name).stem}"
    return None
