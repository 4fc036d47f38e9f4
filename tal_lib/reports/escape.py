"""Text of a user's (class names, recording ids, benchmarks) as plain text in every format that is written.
One function a format.

markdown  a table cell, or text within a sentence         html  text or an attribute within quotes
latex     text of a table cell or caption, ASCII          csv   a cell that a spreadsheet does not calculate
"""

import html as _html
import re
import unicodedata

from tal_lib.spreadsheet import csv as csv
from tal_lib.spreadsheet import csv_plain as csv_plain
from tal_lib.spreadsheet import csv_table as csv_table

html = _html.escape

# Starts an element in HTML; `<` before a space or a digit does not (HTML standard, 13.2.5.6).
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#|\w+;)")
# `_` and `*` within words, as in local_global, and `[` of intervals have no meaning in Markdown and stay.
_MARKS = re.compile(r"[`|~$*]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|!(?=\[)")
_ADDRESS = re.compile(
    r"(?i)(?:(?<=http)|(?<=https)|(?<=ftp)|(?<=mailto)|(?<=xmpp)):|(?<=\bwww)\.|@(?=[\w-]+\.)"
)


def markdown(text: object) -> str:
    """Text that Markdown shows unchanged: it cannot start a table cell, link, picture or HTML element.

    Line breaks become spaces.
    """
    text = " ".join(_visible(str(text)).split())
    text = _TAG.sub("&lt;", _ENTITY.sub("&amp;", text))
    text = text.replace("\\", "&#92;")  # two backslashes before a bracket would start a formula in Jupyter
    text = _MARKS.sub(lambda match: "\\" + match[0], text)
    return _ADDRESS.sub(lambda match: f"&#{ord(match[0])};", text)


def _visible(text):
    """The text without invisible characters: control characters, format characters, surrogates."""
    return "".join(
        " " if char.isspace() else char
        for char in text
        if char.isspace() or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "–": "--",
    "†": r"\dag{}",
    "—": "---",
    "−": "$-$",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "„": ",,",
    "‘": "`",
    "’": "'",
    "«": r"$\ll$",
    "»": r"$\gg$",
    "·": r"$\cdot$",
    "•": r"$\bullet$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "∝": r"$\propto$",
    "∞": r"$\infty$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "°": r"$^\circ$",
    "µ": r"$\mu$",
    "²": "$^2$",
    "³": "$^3$",
    "¹": "$^1$",
    "ᵉ": "$^e$",
    "∑": r"$\sum$",
    "√": r"$\surd$",
    "§": r"\S{}",
    "¶": r"\P{}",
    "©": r"\copyright{}",
    "£": r"\pounds{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
_GREEK = (  # in Unicode order: a final sigma comes before sigma
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho - sigma tau "
    "upsilon phi chi psi omega"
)
_LIKE_LATIN = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧ" + "ο", "ABEZHIKMNOPTX" + "o"))  # Greek letters without a LaTeX command
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u030a": "r",
    "\u0327": "c",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u030b": "H",
    "\u030c": "v",
}


def _greek():
    for offset, name in enumerate(_GREEK.split()):
        small, capital = chr(0x3B1 + offset), chr(0x391 + offset)
        for letter, command in ((small, name), (capital, name.capitalize())):
            if name not in ("-", "omicron") and letter not in _LIKE_LATIN:
                yield letter, rf"$\{command}$"
    yield "ς", r"$\varsigma$"


_LATEX |= dict(_greek()) | _LIKE_LATIN


def latex(text: object) -> str:
    """Text that LaTeX prints unchanged, in ASCII.

    A character that plain LaTeX cannot print becomes its code point: [U+732B].
    """
    text = unicodedata.normalize("NFC", " ".join(_visible(str(text)).split()))
    text = re.sub(r"(?<![^\s(\[+])-(?=\d)", "−", text)  # the sign of a number
    text = re.sub(r"([-',])(?=\1)", "\\1\0", text)  # LaTeX would join two of them
    printed = "".join(map(_latex_letter, text))
    # after a line break, `[` or `*` would be its options
    return "{}" + printed if printed[:1] in ("[", "*") else printed


def _latex_letter(char):
    if char == "\0":
        return "{}"
    if char in _LATEX:
        return _LATEX[char]
    if char.isascii():
        return char
    base, *marks = unicodedata.normalize("NFD", char)
    if len(marks) == 1 and marks[0] in _ACCENTS and base.isascii() and base.isalpha():
        return f"\\{_ACCENTS[marks[0]]}{{{base}}}"
    return f"[U+{ord(char):04X}]"
