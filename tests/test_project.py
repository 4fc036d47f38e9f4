"""The files around the code say the same thing."""

import json
import re
import subprocess
from fnmatch import fnmatch
from urllib.parse import unquote

import pandas as pd
import pytest
import yaml

from experiments import fidelity
from tal_lib import __version__
from tal_lib.files import REPOSITORY
from tal_lib.reports import provenance, results_page, tables
from tal_lib.reports.layout import TOPICS, Layout
from tal_lib.sweeps.grid_file import read_grid
from tal_lib.sweeps.slices import GPU


def test_version_is_one():
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == __version__
    assert f"## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()
    assert f"version-{__version__}-" in (REPOSITORY / "README.md").read_text()


def test_readme_points_at_what_exists():
    text = (REPOSITORY / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (REPOSITORY / target).exists(), target
    for target in re.findall(r"make ([\w-]+)", text):
        assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.M), target
    assert "make test" in (REPOSITORY / ".ci" / "run").read_text() and "make test" in text


def test_make_costs_measures_every_grid_of_costs():
    """Cells of costs need a quiet machine (`alone`). Grids for a GPU are those of `make gpu`."""
    makefile = (REPOSITORY / "Makefile").read_text()
    listed = set(re.search(r"^COSTS := (.+)$", makefile, re.M)[1].split())
    sweeps = (REPOSITORY / "notebooks" / "sweeps").glob("*.yaml")
    grids = [yaml.safe_load(path.read_text()) for path in sweeps]
    timed = [grid for grid in grids if all(cell.get("alone") for cell in grid["cells"])]
    on_gpu = {grid["name"] for grid in timed if grid["cells"][0]["parameters"].get("device") == "cuda"}
    assert {grid["name"] for grid in timed} - on_gpu <= listed <= {grid["name"] for grid in grids}
    assert on_gpu and on_gpu <= set(GPU)


@pytest.mark.parametrize(
    ("page", "template"), [("RESULTS.md", results_page.TEMPLATE), ("README.md", results_page.README)]
)
def test_the_pages_say_what_the_tables_say(tmp_path, page, template):
    written = results_page.write(Layout(), tmp_path / page, template).read_text()
    assert written == (REPOSITORY / page).read_text()


def test_the_summary_of_fidelity_is_that_of_its_rows():
    page = (REPOSITORY / "docs" / "fidelity.md").read_text(encoding="utf-8")
    assert f"\n{fidelity.summary(pd.read_csv(fidelity.COMMITTED))}\n" in page


def test_the_readme_is_short_and_has_no_hole():
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    assert len(lines) <= 150 and "not measured yet" not in "\n".join(lines)


def test_the_results_are_short():
    assert len((REPOSITORY / "RESULTS.md").read_text(encoding="utf-8").splitlines()) <= 250


DICTIONARY = (REPOSITORY / "results" / "README.md").read_text(encoding="utf-8")
TIDY = sorted(path for path in Layout().tables.glob("[!.]*"))


@pytest.mark.parametrize("path", TIDY, ids=lambda path: path.name)
def test_every_column_is_in_the_data_dictionary(path):
    known = set(re.findall(r"`([^`]+)`", DICTIONARY))
    assert any(fnmatch(path.stem, name) for name in known), f"{path.name} is not in the dictionary"
    table = tables.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, nrows=0)
    assert not set(table) - known


def test_experiments_are_in_the_data_dictionary():
    for path in Layout().experiments.glob("[!.]*"):  # not the list of written files
        assert f"`{path.stem}`" in DICTIONARY, path.name


def test_the_dictionary_says_how_many_cells_are_of_uncommitted_code():
    origin = provenance.read(Layout())
    assert f"({origin.uncommitted:,} of {origin.cells:,} cells)" in DICTIONARY


def test_results_lie_where_the_layout_says():
    layout, folders = (
        Layout(),
        {"ledger", "tables", "readers", "experiments", "notebooks", "subsets", "prior"},
    )
    made_elsewhere = {"quick", "models", "detections"}
    assert {path.name for path in layout.results.iterdir() if path.is_dir()} - made_elsewhere == folders
    assert {path.name for path in layout.results.iterdir() if path.is_file()} == {"README.md"}
    for kind, suffixes in ((layout.readers, {".md", ".tex", ".csv"}), (layout.figures, {".png"})):
        assert {path.name for path in kind.iterdir()} <= set(TOPICS)
        assert {path.suffix for path in kind.glob("*/*") if path.name[0] != "."} == suffixes
        for suffix in suffixes:  # a name is enough to find a table or a figure
            names = [path.name for path in kind.glob(f"*/*{suffix}")]
            assert len(names) == len(set(names))
    assert not list(layout.notebooks.glob("*.html"))


LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=[\"']([^\"']+)")
PAGES = sorted(
    REPOSITORY / name
    for name in subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "--", "*.md", "*.ipynb"], capture_output=True, text=True
    ).stdout.splitlines()
    if not name.endswith(".template.md")
)


def prose_of(path):
    """What of a file is Markdown: the text, or the Markdown cells and outputs of a notebook."""
    if path.suffix == ".md":
        return re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    shown = [
        output.get("data", {}).get("text/markdown", "")
        for cell in cells
        for output in cell.get("outputs", [])
    ]
    prose = [cell["source"] for cell in cells if cell["cell_type"] == "markdown"] + shown
    return "\n".join("".join(text) for text in prose)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(path):
    for match in LINK.finditer(prose_of(path)):
        target = unquote(match[1] or match[2]).partition("#")[0]
        if target and not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.relative_to(REPOSITORY)}: {target}"


def test_the_links_of_the_template_are_those_of_the_page():
    template = results_page.TEMPLATE.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", template):
        assert (REPOSITORY / target).exists(), target


def test_readme_has_the_label_fractions_of_the_quick_study():
    (fractions,) = {
        tuple(block.grid["fraction"])
        for block in read_grid(REPOSITORY / "notebooks" / "sweeps" / "quick.yaml").blocks
        if "fraction" in block.grid
    }
    shown = " and ".join(f"{100 * fraction:g}" for fraction in fractions)
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert f"`make study` trains four models with {shown} % of the labels" in text
