"""The numbers on rendered notebooks are those of the tables beside them."""

import csv
import re
from functools import cache

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from tal_lib.reports import pages, tables
from tal_lib.reports.costs.inference import cost_by_length
from tal_lib.reports.costs.shapes import conditions
from tal_lib.reports.layout import Layout
from tal_lib.writing import REPOSITORY

LAYOUT = Layout(REPOSITORY / "results", REPOSITORY / "figures")
PAGES = {path.stem: path for path in sorted(LAYOUT.notebooks.glob("*.ipynb"))}
OF_TABLES = [name for name in PAGES if name.startswith(("00_", "03_inference_cost_", "10_end_to_end"))]
PRECISIONS = ("bfloat16", "tf32")  # a page has them in one table, readers have a table of each
TIOU = ["0.3", "0.4", "0.5", "0.6", "0.7"]
OF_RUNS = {"02_train_evaluate": "data_efficiency", "04_open_set": "open_set"}
OF_RUNS |= {f"05_streams_and_distillation_{name}": name for name in ("streams", "distillation", "ablation")}


def shown(page):
    """(header, rows) of every table of data on a page, as text; an index is the first columns."""
    for cell in nbformat.read(page, as_version=4).cells:
        for output in cell.get("outputs", []):
            html = output.get("data", {}).get("text/html", "")
            for table in BeautifulSoup(html, "html.parser").find_all("table"):
                yield grid(table)


def grid(table):
    """The cells of a table of pandas, those that span several rows repeated in each."""
    heads = [[cell.get_text() for cell in row.find_all("th")] for row in table.thead.find_all("tr")]
    index = [name for name in heads[1] if name] if len(heads) > 1 else [""]
    rows, waiting = [], {}  # column → (rows that its cell still spans, its text)
    for row in table.tbody.find_all("tr"):
        cells, line = iter(row.find_all(["th", "td"])), []
        for column in range(len(heads[0])):
            left, text = waiting.get(column, (0, ""))
            if not left:
                cell = next(cells)
                left, text = int(cell.get("rowspan", 1)), cell.get_text()
            waiting[column] = left - 1, text
            line.append(text)
        rows.append(line)
    return [*index, *heads[0][len(index) :]], rows


@cache
def readers():
    """(header, rows) of every table for readers, as text."""
    made = {}
    for path in sorted((LAYOUT.results / "readers").rglob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
            made[path.stem] = header, rows
    return made


@cache
def macs_elsewhere():
    """MACs on the GPUs: readers have those of the main machine alone, of which some are of older code."""
    cost = tables.read_csv(LAYOUT.table("inference_cost"), low_memory=False)
    made = [
        cost_by_length(rows, "macs").reset_index() for _, _, rows in conditions(cost[cost.device == "cuda"])
    ]
    return [(list(table), table.to_numpy().tolist()) for table in made]


def is_part(header, rows, table):
    """Whether every row is one of the table's, in all columns of the page."""
    names, others = table
    if not set(header) <= set(names):
        return False
    take = lambda line, names: tuple(line[names.index(name)] for name in header)
    return {take(row, header) for row in rows} <= {take(row, names) for row in others}


def by_precision(header, rows):
    """The rows of each precision, without its name."""
    parts = {}
    for row in rows:
        model, _, precision = row[0].partition(", ")
        known = header[0] == "model" and precision in PRECISIONS
        parts.setdefault(precision if known else "", []).append([model, *row[1:]] if known else row)
    return parts.values()


@pytest.mark.parametrize("name", OF_TABLES)
def test_a_page_of_tables_shows_those_for_readers(name):
    compared = 0
    for header, rows in shown(PAGES[name]):
        if header[0] not in ("model", "backbone", "benchmark"):
            continue  # the machine; advice in words
        for part in by_precision(header, rows):
            known = [*readers().values(), *macs_elsewhere()]
            assert any(is_part(header, part, table) for table in known), (header, part[0])
            compared += 1
    assert compared >= (1 if name == "00_findings" else 2)


def test_another_number_is_noticed():
    header, rows = readers()["latency_hapt_cpu"]
    assert is_part(header, rows[:2], (header, rows))
    assert not is_part(header, [[*rows[0][:-1], "1"]], (header, rows))


def of_tiou(header, rows, digits):
    """The mAPs (%) of each row, as text."""
    places = [header.index(name) for name in TIOU]
    return {tuple(f"{float(row[place]):.{digits}f}" for place in places) for row in rows}


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith(tuple(OF_RUNS))])
def test_a_page_of_a_run_shows_a_run_of_the_ledgers(name):
    """All values of mAP on the page are those of one cell."""
    about = next(table for start, table in OF_RUNS.items() if name.startswith(start))
    runs = tables.read_csv(LAYOUT.table(about), low_memory=False)
    runs = runs[[name.endswith(benchmark) for benchmark in runs.benchmark]]
    digits = 2 if about == "data_efficiency" else 1
    keys = ["cell", *{"part", "variant"} & set(runs)]
    wide = 100 * runs.pivot_table(index=keys, columns="tiou", values="map")
    lines = wide.apply(lambda row: tuple(f"{value:.{digits}f}" for value in row), axis=1)
    of_cells = lines.groupby("cell").agg(set)
    pages = [of_tiou(header, rows, digits) for header, rows in shown(PAGES[name]) if set(TIOU) <= set(header)]
    assert pages
    for values in pages:
        assert any(values <= cell for cell in of_cells), values


# page → table, columns of the page, and the same columns of a row of the table as text
OF_ONE_CELL = {
    "01_data": (
        "subsets",
        ["recordings", "hours", "segments", "classes", "hash"],
        lambda row: (
            *(f"{row.recordings}", f"{row.hours:.2f}", f"{row.segments}"),
            *(f"{row.classes_seen}", row.subset_hash),
        ),
    ),
    "03_inference_length": (
        "inference_length",
        ["window", "overlap", "avg_map", "seconds_per_hour", "memory_mb"],
        lambda row: (
            *(f"{row.window}" if row.window else "whole recording", f"{row.overlap}", f"{row.avg_map:.2f}"),
            *(f"{row.seconds_per_hour:.2f}", f"{row.peak_memory_bytes / 1e6:.2f}"),
        ),
    ),
    "07_quantization": (
        "quantization",
        ["variant", "avg mAP", "points lost", "file (MB)"],
        lambda row: (
            *(row.variant, f"{row.avg_map:.1f}"),
            *(f"{row.map_lost:.2f}", f"{row.file_bytes / 1e6:.2f}"),
        ),
    ),
    "08_export": (
        "export",
        ["", "export_s", "file_bytes", "avg_map", "avg_map_exported", "largest_difference"],
        lambda row: (
            *(row.format, f"{row.export_s:.3g}", f"{row.file_bytes:.0f}", f"{row.avg_map:.1f}"),
            *(f"{row.avg_map_exported:.1f}", f"{row.largest_difference:.3g}"),
        ),
    ),
    "09_diagnosis": (
        "diagnosis",
        ["characteristic", "bucket", "normalized mAP (%)"],
        lambda row: (row.characteristic, row.bucket, f"{row.value:.1f}"),
    ),
}


def turned(header, rows):
    """The table with a line for each of its columns."""
    first, *others = zip(header, *rows, strict=True)
    return list(first), [list(line) for line in others]


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith(tuple(OF_ONE_CELL))])
def test_a_page_shows_a_cell_of_the_tables(name):
    start = next(start for start in OF_ONE_CELL if name.startswith(start))
    about, columns, text_of = OF_ONE_CELL[start]
    table = tables.read_csv(LAYOUT.table(about), low_memory=False)
    table = table[table.benchmark == name.removeprefix(f"{start}_")]
    keys = ["cell"]
    if about == "diagnosis":  # its page has the mean over seeds
        keys, parts = ["model", "fraction"], ["characteristic", "bucket"]
        table = table[table.analysis == "map_n"].fillna({"bucket": ""})
        table = table.groupby([*keys, *parts]).value.mean().reset_index()
    of_cells = [set(map(text_of, rows.itertuples())) for _, rows in table.groupby(keys)]
    pages_tables = []
    for header, rows in shown(PAGES[name]):
        for header, rows in ((header, rows), turned(header, rows)):  # noqa: B020
            if set(columns) <= set(header):
                pages_tables.append(
                    {tuple(line[header.index(column)] for column in columns) for line in rows}
                )
    (values,) = pages_tables
    assert values and any(values <= cell for cell in of_cells), values


def sentences(page):
    """The texts that the cells of a page printed."""
    for cell in nbformat.read(page, as_version=4).cells:
        for output in cell.get("outputs", []):
            yield output.get("data", {}).get("text/markdown", "")


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("06_")])
def test_the_sentences_on_a_training_say_what_the_tables_have(name):
    keys = ["cell", "benchmark", "model", "preset"]
    both = [tables.read_csv(LAYOUT.table(f"training_{part}")) for part in ("step", "milestones")]
    cells = both[0].merge(both[1], on=keys)
    cells = cells[cells.benchmark == name.removeprefix("06_training_cost_")]
    text, known = " ".join(sentences(PAGES[name])), []
    for row in cells.itertuples():
        phrases = [
            f"**{row.model}** ({row.preset}, {row.params / 1e6:.3f} M parameters)",
            f"**{1e3 * row.step_s_median:.0f} ms** a step",
            f"p10–p90 {1e3 * row.step_s_p10:.0f}–{1e3 * row.step_s_p90:.0f};",
            f"{row.step_samples} samples), {row.steps_per_s:.2f} steps/s",
            f"peak **{row.peak_memory_bytes / 1e6:.0f} MB** above {row.state_bytes / 1e6:.1f} MB",
            f"{row.steps} steps in **{row.total_s:.0f} s**",
            f"after **{row.near_final_s:.0f} s**. Final avg mAP **{100 * row.final_map:.1f} %**",
            f"{100 * row.best_map:.1f} % in epoch {row.best_epoch}, after {row.best_s:.0f} s.",
        ]
        known.append([phrase in text for phrase in phrases])
    assert [True] * 8 in known, known


def test_every_page_is_compared():
    """Alone the rehearsal has no table: its features are generated."""
    starts = ("00_", "03_inference_cost_", "06_", "10_end_to_end", "10_rehearsal", *OF_RUNS, *OF_ONE_CELL)
    assert [name for name in PAGES if not name.startswith(starts)] == []


def test_cells_that_span_rows_are_repeated():
    table = pd.DataFrame({"a": [1, 2, 3]}, index=pd.MultiIndex.from_tuples([("x", 1), ("x", 2), ("y", 1)]))
    html = BeautifulSoup(table.rename_axis(["i", "j"]).to_html(), "html.parser").table
    assert grid(html) == (["i", "j", "a"], [["x", "1", "1"], ["x", "2", "2"], ["y", "1", "3"]])


def note_of(page):
    cells = nbformat.read(page, as_version=4).cells
    return next((cell.source for cell in cells if pages.NOTE in cell.metadata.get("tags", [])), "")


WITH_MEANS = [name for name, page in PAGES.items() if "Their mean avg mAP" in note_of(page)]


def test_some_notes_have_means():
    assert {name[:3] for name in WITH_MEANS} == {"02_", "04_", "05_"}


@pytest.mark.parametrize("name", WITH_MEANS)
def test_the_means_of_a_note_are_in_the_table_that_it_links(name):
    text = note_of(PAGES[name])
    means = re.findall(r" (\d+\.\d)(?=[;.])", re.search(r"Their mean avg mAP \(%\): (.*?)\. ", text + " ")[0])
    (table,) = re.findall(r"All models: \[(\w+)\]", text)
    _, rows = readers()[table]
    if table.startswith(("ablation", "distillation")):  # a row per variant
        rows = [[cell for row in rows for cell in row]]
    of_row = lambda row: {cell.split(" ")[0] for cell in row}
    assert means and any(set(means) <= of_row(row) for row in rows), (means, table)
