"""Names that a user can give: what they become in every format, and that nothing of them acts."""

import io
import re

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from tal_lib.reports import escape, tables, webpage

MARKS = st.sampled_from(list("<>|`*_~$[]()!\\&;#@:/=+-'\"\n\r\t abhttpswx01.{}^%,?"))
TEXTS = st.text(MARKS | st.characters(), max_size=24)
RENDERERS = [markdown2html_mistune, MarkdownIt("gfm-like", {"html": True, "linkify": False}).render]


def seen(text):
    """What a reader sees of a text: no control characters, blanks as one."""
    return " ".join(escape._visible(text).split())


@pytest.mark.parametrize("render", RENDERERS, ids=["mistune", "gfm"])
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="<img src=x onerror=alert(1)>")
@example(text="www.a.b http://c d@e.f")
@example(text=r"\(\)")
@example(text=r"\\[x\\] \a \_ \\| \begin{a}b\end{a}")
def test_a_markdown_cell_shows_the_text_and_holds_nothing_else(render, text):
    cell = escape.markdown(text)
    soup = BeautifulSoup(render(f"| x{cell} | c |\n|---|---|\n| {cell} | {cell}y |\n"), "html.parser")
    first, second = soup.select("td")
    assert not first.find_all() and not second.find_all()
    assert seen(first.get_text()) == seen(text)
    sentence = BeautifulSoup(render(f"Best: **1**, x{cell} y"), "html.parser")
    assert {element.name for element in sentence.find_all()} <= {"p", "strong"}


@pytest.mark.parametrize(
    "name", ["local_global", "tcanet + classifier", "93.6 [93.1, 94.0]", "AR@10", "< 9,216", "5 %"]
)
def test_plain_names_and_numbers_stay_readable(name):
    assert escape.markdown(name) == name and escape.csv(name) == name


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="'=x")
@example(text="'''+A1")
def test_a_csv_cell_starts_no_formula_and_comes_back(text):
    cell = escape.csv(text)
    assert escape.csv_plain(cell) == text
    assert cell[:1] not in tuple("=@\t\r\n")
    if cell[:1] in ("+", "-"):
        assert is_number(cell) or not any(char.isalpha() or char in "!|'\"" for char in cell)


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("value", [-1.5, 3, None, "-1.5", "+0.9 [+0.2, +1.6]", "-inf", "-1e-3", "−3"])
def test_numbers_stay_numbers_in_csv(value):
    assert escape.csv(value) == value


def test_a_csv_file_comes_back(tmp_path, hostile_names):
    table = pd.DataFrame({"=a": hostile_names, "value": range(len(hostile_names))})
    path = tables.write_csv(table, tmp_path, "t")
    assert tables.read_csv(path).to_dict("list") == table.to_dict("list")
    raw = pd.read_csv(io.StringIO(path.read_text()))
    assert raw.columns[0] == "'=a" and "'=cmd()" in set(raw["'=a"])


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_html_is_text(text):
    soup = BeautifulSoup(f"<title>{escape.html(text)}</title><b id='{escape.html(text)}'></b>", "html.parser")
    assert [element.name for element in soup.find_all()] == ["title", "b"]


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_latex_is_ascii_and_balanced(text):
    printed = escape.latex(text)
    assert printed.isascii() and "\n" not in printed
    depth = 0
    for number, char in enumerate(printed):
        if number and printed[number - 1] == "\\" and printed[number - 2 : number] != "\\\\":
            continue
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0
    plain = printed.replace("\\%", "").replace("\\&", "").replace("\\#", "")
    assert not set("%&#") & set(plain)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("100% a_b", r"100\% a\_b"),
        ("~^\\", r"\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("Ω ≤ é", r"$\Omega$ $\leq$ \'{e}"),
        ("猫", "{}[U+732B]"),
        ("-0.5 [-1, 2]", "$-$0.5 [$-$1, 2]"),
        ("a--b", "a-{}-b"),
        ("[x]", "{}[x]"),
    ],
)
def test_latex_of(text, printed):
    assert escape.latex(text) == printed


ACTIVE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<svg onload=alert(1)><a xlink:href=javascript:alert(1)>x</a></svg>",
    "<a href=javascript:alert(1)>x</a>",
    "<a href='  java\nscript:alert(1)'>x</a>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<div style='background:url(javascript:alert(1))' onclick=alert(1)>x</div>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<form action=//evil><input name=a></form><meta http-equiv=refresh content=0>",
    "<img src='data:image/svg+xml,<svg onload=alert(1)>'><img src=//evil/x.png><img src=http://evil/x.png>",
    r"<img src='/\e/x'><img src=' //e/x'><img src='/&Tab;/e/x'>",
    "<plaintext><img src=x onerror=alert(1)>",
    "<xmp><img src=x onerror=alert(1)></xmp>",
]


@pytest.mark.parametrize("body", ACTIVE)
def test_nothing_acts_in_a_page(body):
    cleaned = str(webpage.sanitised(f"<p>before</p>{body}<p>after</p>"))
    soup = BeautifulSoup(cleaned, "html.parser")
    assert {element.name for element in soup.find_all()} <= webpage.TAGS
    for element in soup.find_all():
        assert not [name for name in element.attrs if name.startswith("on")]
        assert "script:" not in "".join(str(element.get("href", "")).split())
        assert element.name != "img" or not re.search(r":|^\s*[/\\]\s*[/\\]", element["src"])
        assert "url(" not in element.get("style", "")
    assert "before" in soup.get_text()


@pytest.mark.parametrize("word", ["path", "mean", "stop", "text", "plaintext", "xmp", "textarea"])
def test_words_in_angle_brackets_take_no_text_with_them(word):
    soup = webpage.sanitised(f"<p>before <{word}> behind</p><table><tr><td>1</td></tr></table>")
    assert soup.get_text(" ").split() == ["before", "behind", "1"] and soup.find("td").get_text() == "1"


def test_blocks_that_are_left_out_do_not_join_their_words():
    assert webpage.sanitised("<section>a</section><section>b</section>").get_text().split() == ["a", "b"]


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_the_sanitiser_is_done_after_once(text):
    once = str(webpage.sanitised(f"<p>{text}</p>"))
    assert str(webpage.sanitised(once)) == once
