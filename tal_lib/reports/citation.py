"""How to cite this study: `CITATION.cff` as BibTeX."""

import re
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.files import study_root
from tal_lib.reading import read_yaml
from tal_lib.reports import escape

NAME = "CITATION.cff"
KEY = "efficient_tal"


def citation(path: str | Path | None = None) -> dict:
    """The preferred citation of a `CITATION.cff` (None: this study's).

    Raises:
        TalError: the file is missing or names no title, authors and year.
    """
    path = Path(path) if path else study_root() / NAME
    content = read_yaml(path, what="citation file", remedy="Restore it from the repository.")
    preferred = content.get("preferred-citation") if isinstance(content, dict) else None
    needed = ("title", "authors", "year")
    if not isinstance(preferred, dict) or not all(preferred.get(name) for name in needed):
        raise TalError(
            f"no preferred-citation with {', '.join(needed)}",
            where=path,
            remedy="Restore it from the repository.",
        )
    return preferred


def bibtex(path: str | Path | None = None) -> str:
    """The preferred citation as a BibTeX entry, with the fields that `cffconvert` writes."""
    preferred = citation(path)
    values = {name: preferred[name] for name in ("doi", "month", "title", "url", "year") if name in preferred}
    authors = " and ".join(map(_author, preferred["authors"]))
    return entry("misc", KEY, {"author": authors} | values)


def placeholders(path: str | Path | None = None) -> list[str]:
    """The fields of the preferred citation that wait for the first public release: `doi`, `url`, or none."""
    preferred = citation(path)
    waiting = {"doi": "0000000", "url": "OWNER"}
    return [name for name, mark in waiting.items() if mark in str(preferred.get(name, ""))]


def _author(person):
    if "name" in person:
        return f"{{{person['name']}}}"  # a group: BibTeX must not take it for first and family name
    return f"{person.get('given-names', '')} {person.get('family-names', '')}".strip()


def entry(kind: str, key: str, fields: dict[str, object]) -> str:
    """A BibTeX entry; fields in the order of their names."""
    lines = [f"{name} = {{{_value(name, value)}}}" for name, value in sorted(fields.items())]
    return f"@{kind}{{{key},\n" + ",\n".join(lines) + "\n}"


def _value(name, value):
    """Text as LaTeX prints it. Addresses stay, and braces that keep words together or capitals."""
    text = str(value)
    if name in ("doi", "url"):
        return text
    return re.sub("[^{} ]+", lambda part: escape.latex(part[0]), text)
