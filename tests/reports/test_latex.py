"""LaTeX of tables: what is bold, and that all of it compiles and fits on the page."""

import itertools
import re
import shutil
import subprocess

import pandas as pd
import pytest

from tal_lib.files import REPOSITORY
from tal_lib.reports import escape, tables
from tal_lib.reports.escape import latex
from tal_lib.reports.latex import (
    HIGHEST,
    LOWEST,
    MOST_PARTS,
    PACKAGES,
    PAGE_PT,
    ROWS,
    SMALLEST,
    Best,
    best_cells,
    latex_table,
)

COMMITTED = sorted((REPOSITORY / "results" / "readers").glob("*/*.tex"))


@pytest.fixture
def compiled(tmp_path):
    """LaTeX sources → the log of one document with all of them; skipped where there is no pdflatex."""

    def compile(sources, width=""):
        if not shutil.which("pdflatex"):
            pytest.skip("pdflatex is not installed (Debian: texlive-latex-base, -recommended, -extra)")
        packages = "".join(f"\\usepackage{{{name}}}\n" for name in PACKAGES)
        body = "\n\\clearpage\n".join(sources)
        document = (
            f"\\documentclass[{width}]{{article}}\n{packages}\\begin{{document}}\n{body}\n\\end{{document}}\n"
        )
        (tmp_path / "all.tex").write_text(document, encoding="ascii")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300)
        log = (tmp_path / "all.log").read_text(encoding="latin-1")
        assert done.returncode == 0, re.findall(r"(?m)^!.*(?:\n.*){3}", log)[:3]
        return log

    return compile


@pytest.mark.parametrize("width", ["", "twocolumn"])
def test_every_committed_table_compiles_and_none_is_wider_than_the_page(compiled, width):
    assert len(COMMITTED) > 50
    log = compiled([path.read_text(encoding="ascii") for path in COMMITTED], width)
    assert not re.findall(r"Overfull \\hbox.*", log)
    assert not re.findall(r"Float too large.*", log)


def test_every_committed_table_is_bounded_by_the_line():
    """Without LaTeX: each `tabular` is inside a box that is never wider than the line, and has as many
    columns as its form."""
    for path in COMMITTED:
        check_form(path.read_text(encoding="ascii"))


def check_form(text):
    parts = text.split("\n\\begin{tabular}")
    assert len(parts) > 1
    for before, part in itertools.pairwise(parts):
        assert before.endswith("\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%")
        form, *lines = part.splitlines()
        columns = len(re.findall(r"[lr]|p\{", re.sub(r">\{.*?\}(?=p)", "", form[1:-1])))
        rows = [line for line in lines if line.endswith("\\\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}


MEASURE = (
    r"\newsavebox\measured\renewcommand{\resizebox}[3]{\sbox\measured{#3}\typeout{WIDTH \the\wd\measured}}"
)


def test_every_table_is_readable_on_the_page(compiled):
    """Written from the committed tables: none has to be scaled down much, and none loses a cell
    but the lists of all trials, which are cut."""
    sources = []
    for path in sorted((REPOSITORY / "results" / "readers").glob("*/*.md")):
        caption, table = tables.read_table(path)
        source = latex_table(table, caption, "t", source=path.with_suffix(".csv").name)
        check_form(source)
        cut = not all(latex(cell) in source for cell in table.to_numpy().ravel())
        assert not cut or (path.stem.startswith("tuning_trials") and "has all of them" in source), path
        if sum(map(len, map(str, table.columns))) + 8 * len(table.columns) > 100:
            sources.append(source)
    widths = re.findall(r"WIDTH (.*)pt", compiled([MEASURE, *sources]))
    assert len(widths) > len(sources) > 5
    assert max(map(float, widths)) <= 1.1 * PAGE_PT / SMALLEST  # the widths in latex.py are approximate


def test_hostile_names_compile(compiled, tmp_path, hostile_names):
    table = pd.DataFrame(
        {name: [name, "–"] for name in hostile_names} | {"long": ["word " * 40, "x"], "n": [1.5, None]}
    )
    texts = [*(chr(code) for code in range(32, 0x2FF)), *map(chr, range(0x370, 0x3FF)), "ŵ ő ř ż ẽ 猫 😀 ﬁ"]
    signs = pd.DataFrame(
        {"signs": ["".join(texts[start : start + 20]) for start in range(0, len(texts), 20)]}
    )
    sources = []
    for number, rows in enumerate((table, signs)):
        path = tables.write_table(rows, tmp_path / f"t{number}.md", " | ".join(hostile_names), HIGHEST)
        sources.append(path.with_suffix(".tex").read_text())
    assert not re.findall(r"Overfull \\hbox.*", compiled(sources))


def test_more_rows_than_a_page_are_several_tables(compiled):
    table = pd.DataFrame({"model": [f"m{number}" for number in range(2 * ROWS + 1)], "n": 1})
    source = latex_table(table, "Many.", "many")
    assert (
        source.count("\\begin{table}") == 3 and "(part 3 of 3)" in source and "\\label{tab:many-3}" in source
    )
    assert all(f"\nm{number} & 1 \\\\" in source for number in range(len(table)))
    compiled([source])


def test_rows_of_several_lines_fill_a_page_sooner(compiled):
    settings = "learning_rate=0.000588, weight_decay=0.0174, norm=instance, drop_path=0.1, window=5, state=8"
    table = pd.DataFrame({"model": [f"m{number}" for number in range(ROWS)], "settings": settings})
    source = latex_table(table, "Long cells.", "long")
    assert source.count("\\begin{table*}") == 3
    assert all(f"\nm{number} & " in source for number in range(ROWS))
    assert not re.findall(r"Float too large.*|Overfull \\hbox.*", compiled([source]))


def test_a_table_of_many_pages_is_cut_and_names_the_file_with_all_rows():
    table = pd.DataFrame({"model": [f"m{number}" for number in range(MOST_PARTS * ROWS + 1)], "n": 1})
    source = latex_table(table, "Many.", "many", source="many_x.csv")
    kept = MOST_PARTS * ROWS
    assert source.count(f"First {kept} of {kept + 1} rows; many\\_x.csv has all of them.") == 1
    assert source.count("\\caption{Continued: Many.") == MOST_PARTS - 1
    assert f"m{kept - 1} " in source and f"m{kept} " not in source


@pytest.mark.parametrize("texts", [1, 2])
def test_a_wide_table_repeats_the_columns_that_name_its_rows(texts):
    names = {f"text {number}": ["a", "b"] for number in range(texts)}
    table = pd.DataFrame(names | {f"number {number}": [number, 0.5] for number in range(30)})
    source = latex_table(table, "Wide.", "wide", HIGHEST)
    check_form(source)
    parts = source.split("\\begin{tabular}")[1:]
    assert len(parts) > 1 and "(part 2 of" in source and "\\label{tab:wide-2}" in source
    assert all(part.startswith("{" + "l" * texts + "r") for part in parts)
    assert [name for name in re.findall(r"number \d+", source)] == list(table.columns[texts:])


def test_long_headings_are_broken_into_lines():
    table = pd.DataFrame({"model": ["a"], "steps in 0.5 GB": ["1"], "[x] of all_of": ["2"]})
    head = latex_table(table, "c", "l").split("\\toprule\n")[1].split("\n")[0]
    assert head == (r"model & \shortstack[r]{steps in 0.5 \\ GB} & \shortstack[r]{{}[x] of \\ all\_of} \\")


def test_columns_stand_by_kind():
    table = pd.DataFrame(
        {
            "model": ["a", "b"],
            "map": ["81.3 [79.0, 84.1]", "–"],
            "n": ["1,234", "< 5"],
            "why": ["x " * 20, "y"],
        }
    )
    form = re.search(r"\\begin\{tabular\}\{(.*)\}", latex_table(table, "c", "l"))[1]
    assert form == r"lrr>{\raggedright\arraybackslash}p{15em}"


TABLE = pd.DataFrame(
    {
        "model": ["50salads", "b", "c", "timeline_prior"],
        "data": ["x", "x", "y", "x"],
        "map": ["81.3 [79.0, 84.1]", "81.3 [80.0, 82.0]", "9.5", "99.0"],
        "group": ["81.3 ± 2.4 a", "97.0 [95.0, 98.1] ab", "9.5 ± 1.2 [27][28]", "99.0 ± 0.5"],
        "ms": ["1,200", "≤ 48", "–", "1"],
        "why": ["1 of 2", "not reached", "", "2 runs"],
        "window": ["2,304", "2,304", "2,304", "64"],
    }
)


@pytest.mark.parametrize(
    ("best", "bold"),
    [
        (Best(high=("map",), low=("ms",)), {("map", 0), ("map", 1), ("ms", 1)}),
        (HIGHEST, {("map", 0), ("map", 1), ("group", 1), ("ms", 0)}),
        (LOWEST, {("map", 2), ("group", 2), ("ms", 1)}),
        (Best(high=("group", "map"), within=("data",)), {("group", 1)}),
        (Best(high=("map", "ms"), by_row=True), {("ms", 0), ("map", 1)}),
        (Best(), set()),
    ],
)
def test_the_best_are_bold(best, bold, tmp_path):
    """Not the floor, one value alone, or values that are all equal."""
    marked = best_cells(TABLE, best)
    assert {(name, row) for name in marked for row in marked.index[marked[name]]} == bold
    source = latex_table(TABLE, "c", "l", best)
    assert source.count("\\textbf") == len(bold)
    text = tables.write_table(TABLE, tmp_path / "t.md", "c", best).read_text()
    assert set(re.findall(r"\*\*(.+?)\*\*", text)) == {
        escape.markdown(TABLE.loc[row, name]) for name, row in bold
    }


def test_numbers_with_letters_stand_right():
    assert re.search(r"\\begin\{tabular\}\{(.*)\}", latex_table(TABLE, "c", "l"))[1] == "llrrrlr"


def test_one_row_has_no_best():
    assert not best_cells(TABLE.head(1), HIGHEST).any(axis=None)
