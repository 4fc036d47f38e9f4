"""Pages for a browser from notebooks and Markdown files, without active content."""

import re
from functools import cache

import nbformat
import nh3
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import markdown2html_mistune

LONG_TEXT = 45  # characters
IGNORED = re.compile(r"[\x00-\x20]")  # what browsers leave out of addresses

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:#222;background:#fff}
pre{background:#f6f6f4;padding:.6rem .8rem;overflow-x:auto;font-size:13px;line-height:1.4;border-radius:4px}
div.output_area,div.jp-OutputArea-output{overflow-x:auto}
table{border:0;border-collapse:collapse;font-size:13.5px;margin:.8rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border:0;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
thead th{border-bottom-color:#888}
th:first-child,td:first-child{text-align:left}tbody th{white-space:normal;min-width:8rem}
td.long{white-space:normal;min-width:16rem}.words{text-align:left}img{max-width:100%;height:auto}.prompt,.jp-InputPrompt,.jp-OutputPrompt{display:none}
summary{color:#777;font-size:13px;cursor:pointer}h1{line-height:1.2}.linenos{display:none}
.k,.kn,.kc,.ow{color:#0b5394}.s1,.s2,.sa,.si{color:#7a3e00}.c1{color:#5a6a5a;font-style:italic}.mi,.mf{color:#8a1c5b}"""

# Text, tables and pictures only: class names, recording ids and notebook outputs may contain anything.
TAGS = set(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 "
    "h4 h5 h6 hr i img "
    "ins kbd li mark ol p pre q s samp small span strong sub summary sup table tbody td tfoot th thead tr tt "
    "u ul".split()
)
ATTRIBUTES = {
    "*": {"class", "id", "title"},
    "a": {"href"},
    "img": {"src", "alt", "loading", "width", "height", "style"},
    "td": {"colspan", "rowspan", "style"},
    "th": {"colspan", "rowspan", "scope", "style"},
    "ol": {"start"},
}
CSS = {"text-align", "max-width", "width"}
BLOCKS = "article aside footer header main nav section".split()  # left out, their text is not joined
ACTIVE = "script style iframe object embed template noscript svg math form link meta base".split()


def sanitised(body: str | BeautifulSoup) -> BeautifulSoup:
    """The body of a page without scripts, event handlers, styles, frames, and pictures of other sites.

    A tree is changed in place.
    """
    soup = BeautifulSoup(body, "html.parser") if isinstance(body, str) else body
    for element in soup.find_all(ACTIVE):  # `select` takes twice to four times as long
        element.decompose()
    for element in soup.find_all(lambda tag: tag.name not in TAGS):
        if element.name in BLOCKS:
            element.insert_after("\n")
        element.unwrap()  # nh3 drops the text in <path> or <mean>, and shows what follows <xmp> as source
    cleaned = nh3.clean(
        str(soup).encode(errors="replace").decode(),  # half of a character, which no file can hold
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        filter_style_properties=CSS,
        link_rel=None,
    )
    soup = BeautifulSoup(cleaned, "html.parser")
    for picture in soup.find_all("img"):
        address = IGNORED.sub("", str(picture.get("src") or ":")).replace("\\", "/")
        if ":" in address or address.startswith("//"):
            picture.decompose()
    return soup


def of_notebook(content: nbformat.NotebookNode) -> BeautifulSoup:
    """The page of an executed notebook with folded code. It is not sanitised yet."""
    body, _ = _exporter().from_notebook_node(content)
    return folded(BeautifulSoup(body, "html.parser"))


@cache
def _exporter():
    return HTMLExporter(template_name="basic")  # it compiles its templates once


def of_markdown(source: str) -> BeautifulSoup:
    """The page of a Markdown text. It is not sanitised yet."""
    return folded(BeautifulSoup(markdown2html_mistune(source), "html.parser"))


def folded(soup: BeautifulSoup) -> BeautifulSoup:
    """The page with folded code, without the marks next to headings, and with readable tables."""
    for cell in soup.find_all(["td", "th"]):
        if len(cell.get_text()) > LONG_TEXT and (cell.name == "td" or cell.find_parent("tbody")):
            cell["class"] = ["long"]
    styles = soup.find_all("style", scoped=True)  # pandas adds one to every table
    for mark in [*soup.find_all("a", class_="anchor-link"), *styles]:
        mark.decompose()
    for table in soup.find_all("table"):
        if "dataframe" in (table.get("class") or ()):
            _one_row(table.select_one("thead"))
        _words_from_the_left(table)
    for code in soup.select("div.cell div.input, div.jp-CodeCell div.jp-Cell-inputWrapper"):
        details = soup.new_tag("details")
        details.append(soup.new_tag("summary", string="code"))
        code.wrap(details)
    return soup


def _one_row(head):
    """Merge the second header row of a table into the first.

    pandas writes the index names into a second row; they fit into the empty cells of the first.
    """
    rows = head.find_all("tr") if head else []
    if len(rows) != 2:
        return
    above, below = (row.find_all("th") for row in rows)
    if len(above) == len(below) and all(
        not (first.get_text(strip=True) and second.get_text(strip=True))
        for first, second in zip(above, below)
    ):
        for first, second in zip(above, below):
            if second.get_text(strip=True):
                first.string = second.get_text()
        rows[1].decompose()


def _words_from_the_left(table):
    """Align columns of words, and their headings, at the left."""
    rows = [row.find_all("td") for row in table.find_all("tr") if row.find_parent("tbody")]
    headings = table.select("thead tr:last-child th")
    if not rows or len(headings) < len(rows[0]):
        return
    for place, column in enumerate(zip(*rows)):
        texts = [cell.get_text(strip=True) for cell in column]
        if all(
            sum(map(str.isalpha, text)) > 0.4 * len(text) and text not in ("NaN", "True", "False")
            for text in texts
        ):
            for cell in (*column, headings[place - len(rows[0])]):
                cell["class"] = [*(cell.get("class") or []), "words"]
