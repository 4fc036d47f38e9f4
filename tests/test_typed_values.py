"""Values that a person types, as in `--only fraction=1`: which values they stand for."""

import pytest

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.cli.options import only
from tal_lib.reading import means
from tal_lib.sweeps.grid import chosen


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0), ("1.0", 1), ("1", 1), ("0.10", 0.1), ("1e-3", 0.001), ("-1", -1), ("1e0", 1),
        ("true", True), ("True", True), ("FALSE", False),
        ("[1, 2]", [1.0, 2]), ("[1,2]", (1, 2)), ("[a, b]", ["a", "b"]), ("[]", []),
        ("{epochs: 5}", {"epochs": 5.0}), ("{}", {}), ("{'a': [true]}", {"a": [True]}),
        ("bilstm", "bilstm"), ("", ""), ("1", "1"), ("yes, it is", "yes, it is"), ("[", "["), ("null", None),
    ],
)  # fmt: skip
def test_what_is_typed_means_the_value(text, value):
    assert means(text, value) and chosen({"x": value}, {"x": text})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", True), ("true", 1), ("0", False), ("1", "1.0"), ("1.0", "1"), ("0.1", 0.11), ("[1]", [True]),
        ("[1, 2]", [1]), ("{a: 1}", {"b": 1}), ("1", [1]), ("bilstm", "bilst"), ("[", [1]), ("", 0),
    ],
)  # fmt: skip
def test_what_is_typed_does_not_mean_the_value(text, value):
    assert not means(text, value) and not chosen({"x": value}, {"x": text})


def test_one_parameter_has_one_value(capsys):
    class Arguments:
        only = ["seed=1", "seed=2"]

    with pytest.raises(TalError, match="--only: two values of one parameter"):
        only(Arguments)
    assert main(["sweep", "quick", "--only", "seed=1", "--only", "seed=2"]) == 2
    capsys.readouterr()


@pytest.mark.parametrize("text", ["fraction=1", "fraction=1.0", "options={}"])
def test_cells_of_a_grid(text, capsys):
    assert main(["sweep", "quick", "--dry-run", "--only", text]) == 0
    assert "\n0 cells" not in f"\n{capsys.readouterr().out}"


@pytest.mark.parametrize("option", [["--from", "x.zip"], ["--root", "elsewhere"]])
def test_an_option_that_rendered_does_not_use_is_refused(option, capsys):
    assert main(["data", "fetch", "rendered", *option]) == 2
    assert f"{option[0]}: rendered is generated on this machine" in capsys.readouterr().err
