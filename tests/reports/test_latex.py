"""LaTeX of tables: what is bold, and that all of it compiles and fits on the page."""

import re
import shutil
import subprocess

import pandas as pd
import pytest

from tal_lib.files import REPOSITORY
from tal_lib.reports import tables
from tal_lib.reports.latex import HIGHEST, LOWEST, PACKAGES, ROWS, Best, best_cells, latex_table

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
        text = path.read_text(encoding="ascii")
        parts = re.findall(
            r"\\resizebox\{\\ifdim\\width>\\linewidth\\linewidth.*?\n\\begin\{tabular\}(.*)\n", text
        )
        assert len(parts) == text.count("\\begin{tabular}") >= 1, path
        columns = len(re.findall(r"[lr]|p\{", re.sub(r">\{.*?\}(?=p)", "", parts[0][1:-1])))
        rows = [line for line in text.splitlines() if line.endswith("\\\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}, path


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
        "model": ["50salads", "b", "c"],
        "data": ["x", "x", "y"],
        "map": ["81.3 [79.0, 84.1]", "81.3 [80.0, 82.0]", "9.5"],
        "ms": ["1,200", "≤ 48", "–"],
        "why": ["1 of 2", "not reached", ""],
    }
)


@pytest.mark.parametrize(
    ("best", "bold"),
    [
        (Best(high=("map",), low=("ms",)), {("map", 0), ("map", 1), ("ms", 1)}),
        (HIGHEST, {("map", 0), ("map", 1), ("ms", 0)}),
        (LOWEST, {("map", 2), ("ms", 1)}),
        (Best(high=("map",), within=("data",)), {("map", 0), ("map", 1), ("map", 2)}),
        (Best(high=("map", "ms"), by_row=True), {("ms", 0), ("map", 1), ("map", 2)}),
        (Best(), set()),
    ],
)
def test_the_best_are_bold(best, bold):
    marked = best_cells(TABLE, best)
    assert {(name, row) for name in marked for row in marked.index[marked[name]]} == bold
    source = latex_table(TABLE, "c", "l", best)
    assert source.count("\\textbf") == len(bold)
