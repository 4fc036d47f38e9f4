"""`tal site`: results, notebooks, tables, figures and documentation as one folder that works offline.

sources.py   the source folder of MkDocs     explorer.py  data of the start page
pages.py     pages that are made here        safety.py    what users bring does not act
mkdocs.yml   settings of MkDocs              static/      scripts and styles

MkDocs with the theme Material makes the pages, mkdocs-jupyter the notebooks, mkdocstrings the API reference.
"""

import importlib.util
import logging
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.files import work_folder
from tal_lib.reports.layout import Layout
from tal_lib.reports.site.sources import PACKAGES, Sources, write_sources
from tal_lib.writing import REPOSITORY, claim, staged

PAGES = ".tal-site.json"  # lists the site's files
HERE = work_folder()  # the study's folder, for the defaults
SETTINGS = Path(__file__).parent / "mkdocs.yml"
# Left out: pages for web servers, one with today's date; source maps; the search's other languages.
UNUSED = ("404.html", "sitemap.xml", "sitemap.xml.gz", "*.map", "assets/javascripts/lunr/*")


def build(
    target: str | Path,
    results: str | Path = HERE / "results",
    figures: str | Path = HERE / "figures",
    about: str | Path = HERE / "RESULTS.md",
    *,
    docs: str | Path = HERE / "docs",
    packages: tuple[str, ...] = PACKAGES,
) -> list[Path]:
    """Write a new site into a folder. Returns the paths of the pages, the start page first.

    Args:
        about: the page of the results; docs: folder of the documentation. Both may be absent.
        packages: the packages of the API reference, by their dotted names.

    Raises:
        TalError: there are no rendered notebooks, the folder holds something other than an earlier site, or
            MkDocs is not installed.
    """
    target, layout = Path(target), Layout(results, figures)
    if not any(layout.notebooks.glob("*.ipynb")):
        raise TalError("no rendered notebooks", where=layout.notebooks, remedy="Run `tal report` first.")
    _check_installed()
    claim(target)
    with staged(target, PAGES, "an earlier site") as folder, tempfile.TemporaryDirectory() as source:
        sources = write_sources(Path(source), layout, Path(about), Path(docs), packages)
        _run_mkdocs(sources, folder)
        pages = sorted(folder.rglob("*.html"), key=lambda path: (path != folder / "index.html", path))
        written = [target / path.relative_to(folder) for path in pages]
    return written


def _check_installed():
    for name in ("mkdocs", "material", "mkdocs_jupyter", "mkdocstrings"):
        if importlib.util.find_spec(name) is None:
            raise TalError(
                f"{name} is not installed", remedy="Run `pip install -e '.[site]'` in the checkout."
            )


def _run_mkdocs(sources: Sources, folder: Path) -> None:
    """Let MkDocs write the site. MkDocs empties its folder first, so it gets one of its own."""
    from mkdocs.commands.build import build as mkdocs_build
    from mkdocs.config import load_config
    from mkdocs.exceptions import MkDocsException

    from tal_lib.reports.site.safety import Safety

    with tempfile.TemporaryDirectory() as made, _quiet():
        config = load_config(
            str(SETTINGS), docs_dir=str(sources.folder), site_dir=made, nav=sources.navigation
        )
        config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(REPOSITORY)]
        config.plugins["tal"] = Safety(sources)  # last: it sees what the others made
        try:
            config.plugins.on_startup(command="build", dirty=False)
            mkdocs_build(config)
            config.plugins.on_shutdown()
        except MkDocsException as error:
            raise TalError(f"MkDocs cannot build the site: {error}", where=folder) from error
        for path in sorted(Path(made).rglob("*")):
            name = path.relative_to(made)
            if path.is_file() and not any(fnmatch(name.as_posix(), pattern) for pattern in UNUSED):
                copy = folder / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


class _quiet:
    """MkDocs reports links to files that the site lacks; they become text."""

    def __enter__(self):
        self.logger = logging.getLogger("mkdocs")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_):
        self.logger.setLevel(self.level)
