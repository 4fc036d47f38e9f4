"""Names that a user can give to classes, recordings and benchmarks, and that have done harm somewhere."""

import pytest


@pytest.fixture(scope="session")
def hostile_names():
    return [
        "<img src=x onerror=alert(1)>",
        "a|b",
        "a\nb",
        "=cmd()",
        "100%",
        "a_b",
        "~^\\",
        "Ω",
        "$x$",
        "[a](javascript:alert(1))",
        "![a](http://b.c/d.png)",
        "@SUM(A1)",
        "-- x",
        "&lt;b&gt;",
        "`x` **y** __z__",
        "\u202eevil",
    ]
