"""The site: every link leads somewhere, what users bring does not act, and pages stay light."""

import base64
import json
import re
import shutil
from functools import cache, partial
from html.parser import HTMLParser
from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from tal_lib import TalError
from tal_lib.reports import report, site, tables
from tal_lib.reports.equal import factorial
from tal_lib.reports.equal.arms import MAIN, MEAN, PLAIN, TUNED, scores_of
from tal_lib.reports.layout import Layout
from tal_lib.reports.pictures import small_png
from tal_lib.reports.site.explorer import OWN_RECIPES, _equal, _with_training, explorer_data, names_of_arms
from tal_lib.reports.webpage import folded

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>"
NOTEBOOKS = "results/notebooks"
FRONT, PAGE = 1_000_000, 3_000_000  # bytes: the page-weight budget
MEANS = {("bilstm", 0.1): 40.0, ("bilstm", 1.0): 80.0, ("tridet", 0.1): 50.0, ("tridet", 1.0): 90.0}


def notebook(title, *outputs):
    page = nbformat.v4.new_notebook()
    page.cells = [
        nbformat.v4.new_markdown_cell(f"# {title}\n\nFirst sentence. Second, [there](../../RESULTS.md)."),
        nbformat.v4.new_code_cell("figures.loss_curve(history);", outputs=list(outputs)),
    ]
    return page


def display(**data):
    data = {name.replace("_", "/").replace("svg", "svg+xml"): value for name, value in data.items()}
    return nbformat.v4.new_output("display_data", data=data)


def tidy_tables(folder):
    """Two models at two label fractions, two runs each, with training times and costs."""
    rows, training = [], []
    for (model, fraction), mean in MEANS.items():
        for seed, change in enumerate((-0.02, 0.02)):
            cell = f"{model}{fraction}{seed}"
            shared = {"cell": cell, "benchmark": "hapt", "device_name": "m"}
            rows += [
                shared
                | {"model": model, "preset": "compact", "fraction": fraction, "seed": seed, "subset_seed": -1}
                | {"fold": -1, "recipe": "", "options": "", "stream": "", "sweep": "s", "tiou": tiou}
                | {"map": mean / 100 + change + shift}
                for tiou, shift in ((0.3, 0.05), (0.7, -0.05))
            ]
            training.append(shared | {"train_seconds": 10 * (seed + 1), "params": 2e6})
    cost = [
        {"benchmark": "hapt", "model": model, "preset": "compact", "options": "", "precision": "float32"}
        | {"device": "cpu", "device_name": "m", "threads_used": 1, "length_steps": 720, "macs": macs}
        | dict.fromkeys(("latency_s_median", "latency_s_p10", "latency_s_p90", "detect_s_median"), 0.01)
        | {"peak_memory_bytes": 5e6}
        for model, macs in (("bilstm", 1e9), ("tridet", 4e9))
    ]
    for name, table in (("data_efficiency", rows), ("training_cost", training), ("inference_cost", cost)):
        tables.write_csv(pd.DataFrame(table), folder, name)


@pytest.fixture(scope="module")
def made(tmp_path_factory, hostile_names):
    """A study with a small site, whose notebook 02, tables and figures have hostile names and contents."""
    folder = tmp_path_factory.mktemp("study")
    pages = folder / "results" / "notebooks"
    pages.mkdir(parents=True)
    tidy_tables(folder / "results" / "tables")
    figure = display(image_png=PIXEL, text_plain="<Figure>")
    active = ATTACK + "<table class=dataframe><tr><td onclick=alert(1)>1</td></tr></table>"
    hostile = [
        display(text_html=active),
        display(text_markdown=f"**{ATTACK}** [x](javascript:alert(1))"),
        display(image_svg="<svg onload=alert(1)></svg>"),
    ]
    nbformat.write(notebook("00 · Title 0", figure), pages / "00_findings.ipynb")
    nbformat.write(notebook(f"</title>{ATTACK}", figure, *hostile), pages / "02_train_evaluate_hapt.ipynb")
    readers = folder / "results" / "readers" / "accuracy"
    ranking = pd.DataFrame({"model": ["afsd"], "IQM": [9.0]})
    tables.write_table(ranking, readers / "data_efficiency_hapt.md", "A caption, 5 % < 6 %.")
    table = pd.DataFrame({name: [name] for name in hostile_names})
    tables.write_table(table, readers / "it's <b>.md", f"Caption {ATTACK}")
    (drawn := folder / "figures" / "accuracy").mkdir(parents=True)
    (drawn / "x' onerror='alert(1).png").write_bytes(b"png")
    (drawn / "curve.png").write_bytes(small_png(base64.b64decode(PIXEL), f"Learning curves {ATTACK}"))
    links = {
        "the table": "results/readers/accuracy/data_efficiency_hapt.md",
        "the picture": "figures/accuracy/curve.png",
        "the code": "tal_lib/cli.py",
        "the page": "results/notebooks/00_findings.ipynb",
        "the columns": "results/README.md",
        "the protocol": "docs/protocol.md",
    }
    shown = ", ".join(f"[{text}]({address})" for text, address in links.items())
    (folder / "RESULTS.md").write_text(
        f"# Results 1\n\n## In short\n\n- One leads.\n\n## More\n\nSee {shown}.\n\n"
        f"::: os.path\n\n--8<-- 'pyproject.toml'\n\n{ATTACK}\n\n```\n# no heading\n\n- no list\n```\n"
    )
    (folder / "results" / "README.md").write_text("# Columns\n\n| a | b |\n|---|---|\n| `x` | y |\n")
    (docs := folder / "docs").mkdir()
    (docs / "protocol.md").write_text("# Protocol\n\n[Results](../RESULTS.md), [code](../tal_lib/cli.py).\n")
    return folder, build(folder)


def build(folder):
    return site.build(
        folder / "site",
        folder / "results",
        folder / "figures",
        folder / "RESULTS.md",
        docs=folder / "docs",
        packages=("tal_lib.errors",),
    )


def soup_of(folder, name):
    return BeautifulSoup((folder / "site" / name).read_text(), "html.parser")


def test_every_link_and_picture_is_there_and_nothing_is_loaded_from_elsewhere(made):
    folder, pages = made
    assert pages[0].name == "index.html" and len(pages) == 9
    assert links_of(pages) > 100
    text = soup_of(folder, "RESULTS.html").article
    addresses = {link.get_text(): link["href"] for link in text.select("a[href]")}
    assert addresses["the table"] == "results/readers/accuracy.html#data_efficiency_hapt"
    assert (
        addresses["the columns"] == "results/columns.html"
        and addresses["the protocol"] == "docs/protocol.html"
    )
    assert "the code" in text.get_text() and "the code" not in addresses
    assert soup_of(folder, "docs/protocol.html").article.select_one("a[href='../RESULTS.html']")


class Page(HTMLParser):
    """What a page leads to and loads. Reading it so is far faster than a tree of its elements."""

    def __init__(self, path):
        super().__init__()
        self.addresses, self.loads, self.ids, self.viewport = [], [], set(), False
        text = path.read_text()
        self.article = text.partition("<article")[2].partition("</article>")[0]
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if LEADS.get(tag) in given:
            self.addresses.append((tag, given[LEADS[tag]]))
        if tag != "a":
            self.loads += [given[key] for key in ("src", "href") if key in given]
        self.ids |= {given["id"]} if "id" in given else set()
        self.viewport |= tag == "meta" and given.get("name") == "viewport"


LEADS = {"a": "href", "img": "src", "link": "href", "script": "src"}
read_page = cache(Page)


def links_of(pages):
    """How many links, pictures, scripts and anchors the pages have; all of them are files of the site."""
    seen, read = 0, {page: read_page(page) for page in pages}
    for page, content in read.items():
        for tag, given in content.addresses:
            address, _, anchor = unquote(given).partition("#")
            if tag == "a" and address.startswith(("https://", "data:")):
                continue  # to be clicked, not loaded
            target = (page.parent / address).resolve() if address else page
            assert target.is_file(), f"{page.name}: {given}"
            if anchor and target in read:
                assert anchor == "__skip" or anchor in read[target].ids, f"{page.name}: {given}"
            seen += 1
        assert content.article and ";base64," not in content.article and content.viewport
    return seen


def test_what_users_and_notebooks_bring_does_not_act(made):
    """Titles, Markdown and HTML outputs of notebooks, captions, file names, directives of MkDocs."""
    folder, pages = made
    for path in pages:
        soup = BeautifulSoup(path.read_text(), "html.parser")
        assert len(soup.select("title")) == 1
        assert not [script for script in soup.select("script") if "alert(1)" in script.get_text()], path
        assert not soup.select("img[src=x]"), path
        for element in soup.find_all():
            assert not [name for name in element.attrs if name.startswith("on")], path
            assert "script:" not in str(element.get("href", "")), path
        if path.name not in ("index.html", "tal_lib.errors.html", "protocol.html"):
            assert not soup.article.select("script, iframe, object, embed, style, form"), path
    assert (
        "‹script›alert(1)‹/script›"
        in soup_of(folder, f"{NOTEBOOKS}/02_train_evaluate_hapt.html").title.get_text()
    )
    cells = [cell.get_text() for cell in soup_of(folder, "results/readers/accuracy.html").select("td")]
    assert "<img src=x onerror=alert(1)>" in cells and "a|b" in cells and "a b" in cells
    results = soup_of(folder, "RESULTS.html").article
    assert "::: os.path" in results.get_text() and "efficient-tal" not in results.get_text()
    code = results.select_one("pre").get_text()
    assert "# no heading" in code and "- no list" in code and not results.select("h1 + h1")


def test_tables_have_their_files_beside_them_and_pictures_are_kept_once(made):
    folder, _ = made
    page = soup_of(folder, "results/readers/accuracy.html")
    links = page.find(id="data_efficiency_hapt").find_next("p").select("a")
    assert [link.get_text() for link in links] == ["CSV", "LaTeX"]
    copied = folder / "site" / "results" / "readers" / links[0]["href"]
    assert copied.read_text() == (folder / "results/readers/accuracy/data_efficiency_hapt.csv").read_text()
    assert len(list((folder / "site" / "pictures").glob("*.png"))) == 1
    assert "(hapt)" in soup_of(folder, f"{NOTEBOOKS}/02_train_evaluate_hapt.html").title.get_text()
    assert "<li>One leads.</li>" in (folder / "site" / "index.html").read_text()


def test_every_picture_has_words_for_those_who_do_not_see_it(made):
    """A figure says what its file says of itself, a notebook's picture what its function says."""
    folder, pages = made
    shown = {
        page.relative_to(folder / "site").as_posix(): BeautifulSoup(
            page.read_text(), "html.parser"
        ).article.select("img")
        for page in pages
    }
    texts = {name: [image.get("alt", "") for image in images] for name, images in shown.items()}
    assert sorted(texts["figures/accuracy.html"]) == [
        "Figure of accuracy: x' onerror='alert(1)",
        f"Learning curves {ATTACK}",
    ]
    assert texts[f"{NOTEBOOKS}/00_findings.html"] == ["Training loss by epoch."]
    assert all(len(text.split()) >= 4 for name in texts for text in texts[name])


def test_the_reference_is_made_from_the_docstrings(made):
    text = soup_of(made[0], "reference/tal_lib.errors.html").article.get_text()
    assert "TalError" in text and TalError.__doc__.splitlines()[0].strip() in text


def loaded(page):
    """Bytes of a page with all files that it loads, and with the index and worker of the search."""
    root = next(parent for parent in page.resolve().parents if (parent / "search").is_dir())
    files = {(page.parent / unquote(address)).resolve() for address in read_page(page).loads}
    files |= {page.resolve(), root / "search/search_index.js", *root.glob("assets/javascripts/workers/*.js")}
    return sum(path.stat().st_size for path in files)


def test_the_pages_are_light(made):
    _, pages = made
    assert loaded(pages[0]) < FRONT / 2 and max(map(loaded, pages)) < PAGE / 2


@pytest.mark.slow
def test_the_committed_results_make_a_site_within_the_budget(tmp_path):
    pages = site.build(tmp_path / "site")
    assert links_of(pages) > 1000
    assert loaded(pages[0]) < FRONT
    assert {page.name: size for page in pages if (size := loaded(page)) >= PAGE} == {}


@pytest.mark.slow
def test_the_findings_are_at_most_eight_screens(tmp_path, open_tab):
    """At 1280 × 800, with all pictures."""
    (pages := tmp_path / "results" / "notebooks").mkdir(parents=True)
    shutil.copy(Layout().notebooks / "00_findings.ipynb", pages)
    tidy_tables(tmp_path / "results" / "tables")
    (tmp_path / "docs").mkdir()
    for name in ("RESULTS.md", "results/README.md"):
        (tmp_path / name).write_text("# A page\n")
    build(tmp_path)
    tab = open_tab(width=1280)
    size = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    tab.ask("Emulation.setDeviceMetricsOverride", **size)
    tab.ask("Page.navigate", url=(tmp_path / "site" / NOTEBOOKS / "00_findings.html").as_uri())
    tab.wait(
        lambda: tab.value("document.readyState") == "complete" and tab.value("document.images.length") > 1
    )
    tab.value("[...document.images].forEach(picture => picture.loading = 'eager')")
    tab.wait(lambda: tab.value("[...document.images].every(picture => picture.complete)"))
    assert 2 * 800 < tab.value("document.documentElement.scrollHeight") <= 8 * 800


def test_another_folder_is_not_overwritten(made, tmp_path):
    folder, _ = made
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mine.txt").write_text("mine")
    with pytest.raises(TalError, match="contains other files"):
        site.build(tmp_path / "site", folder / "results", folder / "figures")
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["mine.txt"]
    with pytest.raises(TalError, match="tal report"):
        site.build(tmp_path / "new", tmp_path, folder / "figures")
    assert not (tmp_path / "new").exists()


def results_of(folder):
    text = (folder / "site" / "assets" / "tal" / "results.js").read_text()
    return json.loads(text.removeprefix("window.TAL_RESULTS = ").rstrip(";\n"))


def test_the_explorer_has_the_numbers_of_the_tables(made):
    data = results_of(made[0])
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    assert {row["arm"] for row in rows} == {OWN_RECIPES} and {row["benchmark"] for row in rows} == {"hapt"}
    assert {(row["model"], row["fraction"]): row["mean"] for row in rows} == pytest.approx(MEANS)
    assert all(row["low"] < row["mean"] < row["high"] and row["runs"] == 2 for row in rows)
    assert all(row["train_s"] == 15 and row["params"] == 2e6 for row in rows)
    costs = data["costs"]["hapt"]
    assert (costs["of"], costs["steps"], costs["models"]["tridet"]["macs"]) == ("hapt", 720, 4.0)
    assert costs["noisy"] == {"memory": ["bilstm", "tridet"]}  # measured in one process
    (arm,) = data["arms"]
    assert arm["name"] == "own recipes, first study (unequal)"
    assert arm["files"]["hapt"][1] == "results/readers/accuracy/data_efficiency_hapt.tex"


def test_the_plain_recipe_has_the_mean_over_the_tuned_benchmarks(study):
    """As the factorial has it; without one of the benchmarks there is none."""
    records = study({"tridet": 4, "bilstm": 0}, TUNED)
    data = report.tidy_tables(records)
    plain = [*_equal(data, lambda name: pd.DataFrame())][-1]
    mean = plain[plain.benchmark == MEAN].set_index(["fraction", "model"])
    arms = (scores_of(data, arm) for arm in (MAIN, PLAIN))
    known = factorial.factorial(*arms)[0].query("benchmark == 'mean'").set_index(["fraction", "model"])
    columns = {"plain": "mean", "plain_low": "low", "plain_high": "high"}
    pd.testing.assert_frame_equal(
        mean[list(columns.values())], known[[*columns]].rename(columns=columns), check_like=True
    )
    assert (mean.runs == 20).all()
    fewer = report.tidy_tables(study({"tridet": 4, "bilstm": 0}, TUNED[1:]))
    assert MEAN not in set([*_equal(fewer, lambda name: pd.DataFrame())][-1].benchmark)


def test_the_floor_has_no_parameters():
    """Its training cost says a few numbers; README has none."""
    rows = pd.DataFrame({"model": ["bilstm", "timeline_prior"], "cells": [["a"], ["b"]]})
    training = pd.DataFrame({"cell": ["a", "b"], "params": [3, 1], "train_seconds": 1.0, "device_name": "m"})
    known = _with_training(rows, training)
    assert known.params.iloc[0] == 3 and known.params.isna().tolist() == [False, True]


def test_a_sweep_shows_what_no_other_arm_shows(tmp_path):
    """Two more runs of `tridet` in a sweep of their own; its runs with all labels are shared with the arm."""
    folder = tmp_path / "results" / "tables"
    tidy_tables(folder)
    whole = tables.read_csv(folder / "data_efficiency.csv").assign(recipe="")
    longer = whole[whole.model == "tridet"].assign(sweep="steps")
    longer.loc[longer.fraction < 1, "cell"] += "long"
    longer.loc[longer.fraction < 1, "recipe"] = "epochs=1, min_steps=800"
    other = longer[longer.fraction < 1].assign(recipe="epochs=1, min_steps=900", cell=longer.cell + "er")
    table = pd.concat([whole[(whole.model != "tridet") | (whole.fraction < 1)], longer, other])
    tables.write_csv(table, folder, "data_efficiency")
    data = explorer_data(Layout(results=tmp_path / "results"))
    names = {arm["name"] for arm in data["arms"]} - {"own recipes, first study (unequal)"}
    assert names == {"number of steps: at least 800 steps", "number of steps: at least 900 steps"}
    rows = [row[:4] for row in data["rows"] if row[0] != OWN_RECIPES]
    assert rows and all(row[1:] == ["hapt", 0.1, "tridet"] for row in rows)


def test_a_benchmark_without_costs_has_those_of_hapt(tmp_path):
    folder = tmp_path / "results" / "tables"
    tidy_tables(folder)
    table = tables.read_csv(folder / "data_efficiency.csv")
    tables.write_csv(table.assign(benchmark="urfall"), folder, "data_efficiency")
    costs = explorer_data(Layout(results=tmp_path / "results"))["costs"]
    assert costs["urfall"] == {"of": "hapt"} and costs["hapt"]["models"]["tridet"]["macs"] == 4.0
    cost = tables.read_csv(folder / "inference_cost.csv")
    tables.write_csv(cost.assign(benchmark="sfinge3d"), folder, "inference_cost")
    assert explorer_data(Layout(results=tmp_path / "results"))["costs"] == {}  # none of hapt either


def test_names_of_arms_say_what_differs():
    arms = ["equal", "hapt_arms: own recipe", "hapt_arms: exchange=0.3, rotate=30", "a_new_sweep"]
    arms += ["steps: epochs=1, min_steps=100", "steps: epochs=1, min_steps=200"]
    assert list(names_of_arms(arms).values()) == [
        "equal recipe, tuned",
        "first study, other recipes: own recipe",
        "first study, other recipes: instance mixing 0.3, random rotation (°) 30",
        "a_new_sweep",
        "number of steps: at least 100 steps",
        "number of steps: at least 200 steps",
    ]


ROWS = (
    "[...document.querySelectorAll('#tal-rows tbody tr')]"
    ".map(row => [...row.cells].map(cell => cell.textContent))"
)
CHOOSE = (
    "(() => {{ const list = document.getElementById('tal-{}'); list.value = '{}';"
    "list.dispatchEvent(new Event('change')); }})()"
)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_explorer_in_a_browser(made, open_tab, width):
    folder, _ = made
    tab = open_tab(width=width)
    tab.ask(
        "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
    )
    tab.ask("Page.navigate", url=(folder / "site" / "index.html").as_uri() + "#fraction=0.1")
    tab.wait(lambda: tab.value(ROWS))
    first = tab.value(ROWS)
    assert [row[:2] for row in first] == [["tridet", "50.0"], ["bilstm", "40.0"]]  # the address chose 10 %
    assert tab.value("document.documentElement.scrollWidth") <= width
    tab.value(CHOOSE.format("fraction", "1"))
    assert [row[1] for row in tab.value(ROWS)] == ["90.0", "80.0"]
    axis = "document.querySelector('#tal-explorer .tal-axis').textContent"
    before = tab.value(axis)
    tab.value(CHOOSE.format("cost", "train"))
    assert "GMACs" in before and "training time" in tab.value(axis)
    tab.value("document.querySelector('[data-sort=mean]').click()")
    assert [row[0] for row in tab.value(ROWS)] == ["bilstm", "tridet"]
    click_all = "document.querySelector('.tal-models .tal-all').click()"
    tab.value(click_all)
    assert tab.value(ROWS) == [] and "No model is chosen" in tab.value(
        "document.querySelector('.tal-charts').textContent"
    )
    tab.value(click_all)
    search = "(() => {{ const box = document.getElementById('tal-find'); box.value = '{}';"
    search += "box.dispatchEvent(new Event('input')); }})()"
    tab.value(search.format("LST"))
    assert [row[0] for row in tab.value(ROWS)] == ["bilstm"]
    assert "1 model at 100 %" in tab.value("document.querySelector('.tal-count').textContent")
    tab.value(search.format(""))
    assert len(tab.value(ROWS)) == 2
    links = "[...document.querySelectorAll('.tal-links a')].map(link => link.getAttribute('href'))"
    assert [link.split("/")[-1] for link in tab.value(links)[1:]] == [
        "data_efficiency_hapt.csv",
        "data_efficiency_hapt.tex",
    ]
    chosen = "[...document.querySelectorAll('#tal-arm option')].map(option => option.textContent)"
    assert tab.value(chosen) == ["own recipes, first study (unequal)"]
    tab.value("document.querySelector('.tal-models [data-model=bilstm]').click()")
    assert [row[0] for row in tab.value(ROWS)] == ["tridet"]
    mark = "document.querySelector('.tal-chart [data-model=tridet]')"
    tab.value(f"{mark}.dispatchEvent(new Event('mouseenter'))")
    assert "90.0 avg mAP [" in tab.value("document.querySelector('.tal-tip').textContent")
    state = tab.value("location.hash")
    assert {"fraction=1", "cost=train", "hide=bilstm", "order=up"} <= set(state[1:].split("&"))
    csv = unquote(tab.value("document.getElementById('tal-csv').href"))
    assert csv.splitlines()[1].startswith('"hapt","own recipes",1,"tridet",90')
    tab.ask("Page.reload")
    tab.wait(lambda: tab.value(ROWS) and tab.value("document.readyState") == "complete")
    assert [row[0] for row in tab.value(ROWS)] == ["tridet"] and tab.value("location.hash") == state
    assert tab.problems == []


SIZES = """(() => {
    const lines = cell => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size;
    };
    const cells = [...document.querySelectorAll('table.tal-table:not(:has(.long)) td:not(:first-child)')];
    return {
        scheme: document.body.dataset.mdColorScheme,
        width: document.documentElement.scrollWidth,
        broken: cells.filter(cell => lines(cell) > 1).map(cell => cell.textContent),
    };
})()"""


def test_every_page_fits_a_telephone_and_no_cell_is_broken_into_lines(made, open_tab):
    """A wide table scrolls; its names and numbers stay whole. Only long texts have several lines."""
    folder, pages = made
    tab = open_tab(width=390)
    tab.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    tab.ask("Emulation.setEmulatedMedia", features=dark)
    for page in pages:
        tab.ask("Page.navigate", url=page.as_uri())
        here = f"location.href === '{page.as_uri()}' && document.readyState === 'complete'"
        tab.wait(partial(tab.value, here))
        sizes = tab.value(SIZES)
        assert sizes == {"scheme": "slate", "width": 390, "broken": []}, page.name
    assert tab.problems == []


def test_the_search_has_each_paragraph_once_and_little_markup(made):
    """Every page loads the index, so it counts in the budget of the start page."""
    search = made[0] / "site" / "search"
    index = (search / "search_index.json").read_text(encoding="utf-8")
    texts = [entry["text"] for entry in json.loads(index)["docs"]]
    assert not re.search(r"</?(code|ul|ol)\b", " ".join(texts))
    paragraphs = [part for text in texts for part in re.findall(r"<p>(.+?)</p>", text)]
    assert len(paragraphs) > 10 and len(paragraphs) == len(set(paragraphs))
    assert index in (search / "search_index.js").read_text(encoding="utf-8")


def test_the_search_works_in_a_folder(made, open_tab):
    folder, _ = made
    tab = open_tab()
    tab.ask("Page.navigate", url=(folder / "site" / "docs" / "protocol.html").as_uri())
    tab.wait(lambda: tab.value("document.readyState") == "complete")
    query = "document.querySelector('[data-md-component=search-query]')"
    tab.value(f"document.getElementById('__search').click(); {query}.focus(); {query}.value = 'TalError'")
    type_it = f"{query}.dispatchEvent(new KeyboardEvent('keyup', {{bubbles: true}}))"
    hits = "document.querySelectorAll('.md-search-result__link').length"
    tab.wait(lambda: [tab.value(type_it), tab.value(hits)][1])
    assert tab.problems == []


def test_tables_have_one_heading_and_words_stand_at_the_left():
    table = pd.DataFrame(
        {"model": ["a", "b"], "why": ["0.3 s, the least of all", "no other is near"], "ms": [1.5, 2.5]}
    ).set_index("model")
    soup = folded(BeautifulSoup(f"<div><style scoped>th {{}}</style>{table.to_html()}</div>", "html.parser"))
    (row,) = soup.select("thead tr")
    assert [cell.get_text() for cell in row.select("th")] == ["model", "why", "ms"] and not soup.select(
        "style"
    )
    assert [cell.get_text() for cell in soup.select(".words")] == [
        "why",
        "0.3 s, the least of all",
        "no other is near",
    ]
    table.columns.name = "measured"  # both corners taken: nothing is lost
    assert len(folded(BeautifulSoup(table.to_html(), "html.parser")).select("thead tr")) == 2
