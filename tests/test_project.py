"""The files around the code say the same thing."""

import re
from fnmatch import fnmatch

import pandas as pd
import yaml

from tal_lib import __version__
from tal_lib.files import REPOSITORY
from tal_lib.reports import results_page


def test_version_is_one():
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())["version"] == __version__
    assert f"## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_readme_points_at_what_exists():
    text = (REPOSITORY / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (REPOSITORY / target).exists(), target
    for target in re.findall(r"make (\w+)", text):
        assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.M), target
    assert "make test" in (REPOSITORY / ".ci" / "run").read_text() and "make test" in text


def test_readme_figures_are_the_tables():
    """The results in the README are those of the committed tables."""
    summary = pd.read_csv(REPOSITORY / "results" / "data_efficiency_summary.csv")
    cost = pd.read_csv(REPOSITORY / "results" / "inference_cost.csv")
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    header = next(line for line in lines if line.startswith("| avg mAP on HAPT"))
    fractions = [int(share) / 100 for share in re.findall(r"(\d+) %", header)]
    rows = lines[lines.index(header) + 2 :]
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in rows[: next(i for i, row in enumerate(rows) if not row)]
    ]
    assert {row[0] for row in rows} == set(summary.model[summary.benchmark == "hapt"])
    for name, *values in rows:
        for fraction, value in zip(fractions, values):
            mine = summary[
                (summary.benchmark == "hapt") & (summary.model == name) & (summary.fraction == fraction)
            ]
            assert value == (f"{mine['mean'].iloc[0]:.1f}" if len(mine) else "–"), (name, fraction)
        gmacs = (
            cost[
                (cost.benchmark == "hapt") & (cost.model == name.split(" + ")[0]) & (cost.length_steps == 720)
            ].macs.iloc[0]
            / 1e9
        )
        assert values[-1] == f"{gmacs:.2f}", name


def test_the_page_to_cite_says_what_the_tables_say(tmp_path):
    assert (
        results_page.write(REPOSITORY / "results", tmp_path / "RESULTS.md").read_text()
        == (REPOSITORY / "RESULTS.md").read_text()
    )


def test_every_column_is_in_the_data_dictionary():
    text = (REPOSITORY / "results" / "README.md").read_text()
    known = set(re.findall(r"`([^`]+)`", text))
    scripts = {
        "boundary_matching",
        "given_boundaries",
        "speed",
        "live",
        "sweep_overhead",
        "scale",
        "fuzzing",
        "allocator",
    }
    for path in sorted((REPOSITORY / "results").glob("*.csv")):
        if path.with_suffix(".md").is_file():
            continue  # a table for readers has its caption
        assert any(fnmatch(path.stem, name) for name in known), f"{path.name} is not in the dictionary"
        if path.stem not in scripts:
            unknown = set(pd.read_csv(path, nrows=0)) - known
            assert not unknown, f"{path.name}: {unknown}"
