"""Numbers in `docs/` are those of the tables; README and RESULTS are compared in `test_project.py`."""

import json
import re

import pandas as pd
import pytest

from tal_lib import TalError
from tal_lib.files import REPOSITORY
from tal_lib.reports import quoted, results_page
from tal_lib.reports.layout import Layout

PAGES = sorted(quoted.PAGES.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(quoted.PAGES)))
def test_every_number_of_a_page_is_that_of_its_table(page):
    problems = quoted.all_differences(page)
    assert not problems, "\n".join(problems)


# numbers that are typed into the templates of README and RESULTS: a comment there would be part of the page
TYPED = {
    results_page.README: (
        '9.3 = 100 * highest("tables/repeatability", "change", size=True)',
        "0.44, 0.61: of the pairs of hapt, sfinge3d and rendered in readers/equal/between_benchmarks",
        "*: of the quick study, versions",
    ),
    results_page.TEMPLATE: (
        '61.9 = cell(own_design, "mean", variant="local_global: embedding kernel 1, latents 16, '
        'norm instance, regressions both")',
        '68.8 = cell(own_design, "mean", variant="local_global")',
        '66.0 = cell(own_design, "mean", variant="temporalmaxer")',
        '67.3 = cell(own_design, "mean", variant="temporalmaxer: norm half")',
        '67.5 = cell(own_design, "mean", variant="local_global: stem blocks 1")',
        '14 = cell(equal_comparison, "difference", benchmark="sfinge3d", fraction=1, model="actionformer",'
        ' other="bilstm")',
        "36 = count(equal_pairs_sfinge3d_100)",
        '0.4 = cell(memory_thumos14_bfloat16_cuda, "36,864", model="bilstm")'
        ' / cell(memory_thumos14_cuda, "36,864", model="bilstm")',
        '0.6 = cell(memory_thumos14_bfloat16_cuda, "36,864", model="prn")'
        ' / cell(memory_thumos14_cuda, "36,864", model="prn")',
        '2.3 = cell(latency_thumos14_cuda, "36,864", model="tridet")'
        ' / cell(latency_thumos14_cuda, "288", model="tridet")',
        '3.7 = cell(detect_thumos14_cuda, "36,864", model="tridet")'
        ' / cell(detect_thumos14_cuda, "288", model="tridet")',
        '13 = cell(latency_thumos14_cuda, "36,864", model="action_mamba")'
        ' / cell(latency_thumos14_cuda, "288", model="action_mamba")',
        '9 = cell(detect_thumos14_cuda, "36,864", model="action_mamba")'
        ' / cell(detect_thumos14_cuda, "288", model="action_mamba")',
        '6.5 = cell(latency_thumos14_cuda, "36,864", model="temporalmaxer")',
        '60 = cell(detect_thumos14_cuda, "36,864", model="temporalmaxer")',
        '202 = count("tables/device_check", ok="True")',
        '204 = count("tables/device_check")',
        "2.11: the version of torch",
        '9.3 = 100 * highest("tables/repeatability", "change", size=True)',
        '0.1 = cell(data_efficiency_hapt, "100 %", model="temporalmaxer")'
        ' - cell(data_efficiency_hapt, "100 %", model="actionformer")',
        "0.3, 0.7: tIoU thresholds",
        "3.8, 6.2, 0.5, 45, 61: of the data",
        "93.9, 83.7: of the published code",
        '86.8 = 100 * mean("tables/data_efficiency", "map", benchmark="hapt", model="actionformer",'
        ' fraction="0.2", not_seed=3, sweep=["hapt", "hapt_first"])',
    ),
}


@pytest.mark.parametrize("template", TYPED, ids=lambda path: path.name)
def test_every_number_that_is_typed_into_a_template_is_that_of_its_table(template):
    text = re.sub(r"\{\{.*?\}\}", "", "\n".join(section.prose for section in quoted.sections(template)))
    assert not quoted.differences(quoted.Section(template.name, text, TYPED[template]))


def test_pages_with_results_name_their_tables():
    """The comparison is not empty: these pages have many numbers of tables."""
    for name, least in (
        ("costs", 40),
        ("first-study", 40),
        ("refutation", 12),
        ("scale", 10),
        ("fidelity", 40),
    ):
        lines = [line for part in quoted.sections(quoted.PAGES / f"{name}.md") for line in part.lines]
        assert sum(bool(quoted.LINE.fullmatch(line)) for line in lines) >= least, name


@pytest.fixture
def layout(tmp_path):
    (tmp_path / "results" / "tables").mkdir(parents=True)
    table = pd.DataFrame(
        {
            "model": ["a", "b", "c"],
            "avg mAP": ["93.65 [92.1, 94.9]", "-1,234.5", ""],
            "seconds": [0.0714, 12.5, 3.0],
        }
    )
    table.to_csv(tmp_path / "results" / "tables" / "made.csv", index=False)
    return Layout(tmp_path / "results")


def problems_of(tmp_path, layout, text, *lines, complete=True):
    page = tmp_path / "page.md"
    page.write_text("\n".join(["# Page", text, "<!-- numbers", *lines, "-->"]), encoding="utf-8")
    return [
        problem
        for section in quoted.sections(page)
        for problem in quoted.differences(section, layout, complete=complete)
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("93.7 or 93.65", '93.7 = cell(made, "avg mAP", model="a")'),
        ("with 94.9 at most", '94.9 = cell("tables/made", "avg mAP", model="a", part=2)'),
        ("a loss of −1,234.5 points", '−1,234.5 = lowest(made, "avg mAP")'),
        ("1,234 to 1,235", '1,234 = highest(made, "avg mAP", size=True)'),  # half to even, as Python rounds
        ("71 ms", '71 = 1000 * cell(made, "seconds", model="a")'),
        ("7e-2 s", '7e-2 = lowest(made, "seconds")'),
        ("under 13 s", '13 > highest(made, "seconds")'),
        ("3.0 in the middle", '3.0 = median(made, "seconds", model=["a", "b", "c"])'),
        ("3 models, 2 without c", "3 = count(made)"),
        ("2 of them", '2 = different(made, "model", not_model="c")'),
    ],
)
def test_a_number_agrees_with_its_table_and_another_does_not(tmp_path, layout, text, line):
    assert not problems_of(tmp_path, layout, text, line, complete=False)
    number = line.split()[0]
    other = number[:-1] + ("4" if number[-1] != "4" else "9")
    if ">" not in line:
        (problem,) = problems_of(
            tmp_path, layout, text.replace(number, other), line.replace(number, other, 1), complete=False
        )
        assert other in problem and "but the table has" in problem and "page.md, Page" in problem
    (problem,) = problems_of(tmp_path, layout, "Nothing.", line)
    assert "not in the text" in problem


@pytest.mark.parametrize(
    ("text", "unnamed"),
    [
        ("avg mAP 93.7, 12 models", ["93.7"]),
        ("at most 6e-5 and 1.29 s", ["6e-5", "1.29"]),
        ("lost by 61 of the 85 rows, and 5 of 10 % of 3 labels", ["61", "85"]),
        ("`0.5` and [link](a-1.5.md) and version 0.2.0\n```\n1.5\n```", []),
        ("<!-- 1.5 -->", []),
    ],
)
def test_a_number_without_a_table_is_noticed(tmp_path, layout, text, unnamed):
    problems = problems_of(tmp_path, layout, text)
    assert [problem.split(": ")[1].split()[0] for problem in problems] == unnamed
    assert not problems_of(tmp_path, layout, text, complete=False)
    assert not problems_of(tmp_path, layout, text, *(f"{number}: history" for number in unnamed))
    assert not problems_of(tmp_path, layout, text, "*: settings")


def test_long_numbers_of_a_section_are_somewhere_in_the_rows(tmp_path, layout):
    text = "Parameters −1,234.5 and 77,777, at 0.3"
    (problem,) = problems_of(tmp_path, layout, text, "* = any(made)", complete=False)
    assert "77,777 is in no table" in problem


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1.5", "cannot be read"),
        ('1.5 = cell(absent, "x")', "0 tables are called absent"),
        ('1.5 = cell(made, "absent")', "no column 'absent'"),
        ('1.5 = cell(made, "seconds")', "ValueError"),  # several rows
        ('1.5 = cell(made, "seconds", model="z")', "ValueError"),
        ('1.5 = __import__("os").getcwd()', "only arithmetic"),
        ("1.5 = 1 if 1 else 2", "only arithmetic"),
    ],
)
def test_a_line_that_names_nothing_is_an_error(tmp_path, layout, line, message):
    with pytest.raises(TalError, match=message):
        problems_of(tmp_path, layout, "1.5", line)


def test_the_page_of_findings_says_what_the_readme_says():
    """The rendered notebook and README have the same sentences of findings: one value, one rounding."""
    notebook = json.loads((REPOSITORY / "results" / "notebooks" / "00_findings.ipynb").read_text())
    shown = [
        "".join(output["data"]["text/markdown"])
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if "text/markdown" in output.get("data", {})
    ]
    findings = next(text for text in shown if text.startswith("- "))
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    results = readme.partition("## Results")[2].partition("\n\n- ")[2].partition("\n\n")[0]
    plain = lambda text: re.sub(r"[*\\`]", "", text).splitlines()
    assert plain(findings) == plain(f"- {results}")
