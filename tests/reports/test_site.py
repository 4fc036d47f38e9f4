from urllib.parse import unquote

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from tal_lib import TalError, cli
from tal_lib.reports import site, tables
from tal_lib.reports.webpage import folded

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results" / "notebooks"
    folder.mkdir(parents=True)
    for number, name in enumerate(("00_findings", "02_train_evaluate_hapt")):
        page = nbformat.v4.new_notebook()
        page.cells = [
            nbformat.v4.new_markdown_cell(
                f"# 0{number} · Title {number}\n\nFirst sentence. Second, [there](RESULTS.md)."
            ),
            nbformat.v4.new_code_cell(
                "1 + 1",
                outputs=[
                    nbformat.v4.new_output(
                        "display_data", data={"image/png": PIXEL, "text/plain": "<Figure>"}
                    )
                ],
            ),
        ]
        nbformat.write(page, folder / f"{name}.ipynb")
    (readers := tmp_path / "results" / "readers" / "accuracy").mkdir(parents=True)
    (readers / "standings_hapt.md").write_text(
        "A caption, 5 % < 6 %.\n\n| model | IQM |\n|:--|--:|\n| afsd | 9 |\n"
    )
    (drawn := tmp_path / "figures" / "accuracy").mkdir(parents=True)
    (drawn / "curve.png").write_bytes(b"png")
    (drawn / "data_efficiency_hapt.png").write_bytes(b"curves")
    links = {
        "the table": "results/readers/accuracy/standings_hapt.md",
        "the picture": "figures/accuracy/curve.png",
        "the code": "tal_lib/cli.py",
        "the page": "results/notebooks/00_findings.ipynb",
    }
    short = "## In short\n\n- One leads.\n\n## More\n\n"
    (tmp_path / "RESULTS.md").write_text(
        f"# Results 1\n\n{short}What came out. See "
        + ", ".join(f"[{a}]({b})" for a, b in links.items())
        + ".\n"
    )
    return tmp_path


def build(folder):
    return site.build(folder / "site", folder / "results", folder / "figures", folder / "RESULTS.md")


def test_every_link_and_picture_of_the_site_is_there(results):
    pages = build(results)
    assert [page.name for page in pages] == [
        "index.html",
        "results.html",
        "00_findings.html",
        "02_train_evaluate_hapt.html",
        "tables.html",
        "figures.html",
    ]
    assert links_of(pages) > 20
    text = (results / "site" / "results.html").read_text()
    assert (
        "tables.html#standings_hapt" in text
        and "pictures/curve.png" in text
        and "the code" in text
        and "cli.py" not in text
    )


def test_the_committed_pages_make_a_site_without_broken_links(tmp_path, capsys):
    assert cli.main(["site", "--out", str(tmp_path / "site")]) == 0
    assert "index.html" in capsys.readouterr().out
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert links_of(pages) > 100
    assert all(page.stat().st_size < 1_000_000 for page in pages)


def links_of(pages):
    """How many links, pictures and anchors the pages have; all of them lead somewhere."""
    seen, soups = 0, {page.name: BeautifulSoup(page.read_text(), "html.parser") for page in pages}
    anchors = {name: {element["id"] for element in soup.select("[id]")} for name, soup in soups.items()}
    for page in pages:
        soup = soups[page.name]
        for tag, key in (("a", "href"), ("img", "src"), ("link", "href")):
            for one in soup.select(f"{tag}[{key}]"):
                address, _, anchor = unquote(one[key]).partition("#")
                if address.startswith("data:"):
                    continue
                target = page.parent / address if address else page
                assert target.is_file(), f"{page.name}: {one[key]}"
                if anchor:
                    assert anchor in anchors[target.name], f"{page.name}: {one[key]}"
                seen += 1
        assert ";base64," not in page.read_text() and soup.select_one("meta[name=viewport]")
    return seen


def test_the_same_picture_is_kept_once_and_the_index_says_what_is_where(results):
    build(results)
    assert len(list((results / "site" / "pictures").glob("*.png"))) == 3
    index = (results / "site" / "index.html").read_text()
    assert "01 · Title 1 (hapt)" in index and "First sentence." in index and "Second" not in index
    assert "<li>One leads.</li>" in index and "pictures/data_efficiency_hapt.png" in index


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


def test_another_folder_is_not_overwritten(results):
    (results / "site").mkdir()
    (results / "site" / "mine.txt").write_text("mine")
    with pytest.raises(TalError, match="something else"):
        build(results)
    assert (results / "site" / "mine.txt").read_text() == "mine"
    with pytest.raises(TalError, match="tal report"):
        site.build(results / "new", results / "figures")


def test_what_users_and_notebooks_bring_does_not_act(results, hostile_names):
    """Titles, Markdown and HTML outputs of notebooks, captions, file names."""
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    page = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output(
        "display_data",
        data={"text/html": attack + "<table class=dataframe><tr><td onclick=alert(1)>1</td></tr></table>"},
    )
    written = nbformat.v4.new_output(
        "display_data", data={"text/markdown": f"**{attack}** [x](javascript:alert(1))"}
    )
    drawn = nbformat.v4.new_output("display_data", data={"image/svg+xml": "<svg onload=alert(1)></svg>"})
    page.cells = [
        nbformat.v4.new_markdown_cell(f"# </title>{attack}\n\nFirst {attack}."),
        nbformat.v4.new_code_cell("1", outputs=[output, written, drawn]),
    ]
    nbformat.write(page, results / "results" / "notebooks" / "05_x.ipynb")
    table = pd.DataFrame({name: [name] for name in hostile_names})
    tables.write_table(
        table, results / "results" / "readers" / "accuracy" / "it's <b>.md", f"Caption {attack}"
    )
    (results / "figures" / "accuracy" / "x' onerror='alert(1).png").write_bytes(b"png")
    pages = build(results)
    for path in pages:
        soup = BeautifulSoup(path.read_text(), "html.parser")
        assert not soup.select("script, iframe, object, embed, svg, style")
        for element in soup.find_all():
            assert not [name for name in element.attrs if name.startswith("on")], path
            assert "script:" not in str(element.get("href", "")), path
        assert len(soup.select("title")) == 1
    assert "<script>alert(1)</script>" in soup_of(results, "05_x").title.get_text()
    cells = [cell.get_text() for cell in soup_of(results, "tables").select("td")]
    assert "<img src=x onerror=alert(1)>" in cells and "a|b" in cells and "a b" in cells


def soup_of(results, name):
    return BeautifulSoup((results / "site" / f"{name}.html").read_text(), "html.parser")
