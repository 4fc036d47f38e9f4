"""What people set goes through one door: right values are taken as meant, wrong ones are refused by name."""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tal_lib import TalError, models
from tal_lib.errors import short
from tal_lib.files import checked_name
from tal_lib.models import PostProcess
from tal_lib.models.parts.detector import option_names
from tal_lib.provenance import checked_device, default_device
from tal_lib.reading import parse_yaml
from tal_lib.training import Recipe, recipe_for
from tal_lib.training.settings import route
from tal_lib.validation import Checked, Count, Fraction, OddCount, Positive, Probability, Seed, validate

HUGE = 10**400
# no option of any model takes one of these
NEVER = [object(), b"x", HUGE, "9" * 5000, [[[1]]], {1: 2}, [1, "x"], float("nan")]
# some options take some of these
SOMETIMES = ["x", "", None, [], {}, -1, 0, True, 2.5, float("inf"), [[1]], 10**9, (), 1e-300]
# whole numbers that often do not go together with the other options
WHOLE = [6, 7]


def outcome(name, option, value, run):
    """The message of a refusal; None where the value is taken. Any other error passes."""
    try:
        models.config(name, **{option: value})
        if run:
            model = models.build(name, input_dim=8, num_classes=3, **{option: value}).eval()
            with torch.no_grad():
                model(torch.randn(1, 8, 20))
    except TalError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", models.names())
def test_every_option_of_every_model_refuses_nonsense(name):
    """Nothing but a TalError comes out, and it names model and option; what is taken builds and runs."""
    for option in (field.name for field in fields(models.config(name))):
        for value in NEVER:
            message = outcome(name, option, value, run=False)
            assert message is not None, (option, short(value))
            assert message.startswith(f"{name}: ") and option in message, message
            assert len(message.splitlines()) == 1 and len(message) < 2000
        for value in SOMETIMES:
            outcome(name, option, value, run=False)
        for value in WHOLE:
            outcome(name, option, value, run=isinstance(getattr(models.config(name), option), int))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("actionformer", {"heads": 3}, "heads: 3 does not divide width: 128"),
        ("afsd", {"groups": 3}, "groups: 3 does not divide width: 128"),
        ("tridet", {"window": 2}, "window: 2 is not an odd number"),
        ("local_global", {"kernels": (3, 4)}, "kernels.2: 4 is not an odd number"),
        ("local_global", {"heads": 5, "latents": 16}, "heads: 5 does not divide 48"),
        ("local_global", {"width": 97}, "width: 97 is odd"),
        ("gaf", {"latents": 0}, "latents: 0 is not at least 1"),
        ("tadtr", {"width": 36, "heads": 4}, None),
        ("tadtr", {"width": 38, "heads": 2}, "multiple of 4"),
        ("bmn", {"overlap": 128}, "overlap=128"),
        ("bmn", {"window": 60000, "max_duration": 60000}, "3,600,000,000 proposals"),
        ("bsn", {"curves": ["middle"]}, "not one of start, end or action"),
        ("bsn", {"curves": []}, "curves: the list is empty"),
        ("prn", {"relation_heads": 5}, "relation_heads: 5 does not divide relation_width: 48"),
        ("tcanet", {"generator": "tcanet"}, "would refine itself"),
        ("tcanet", {"generator": "tadrt"}, "unknown model 'tadrt'.*Did you mean tadtr?"),
        ("tcanet", {"generator_preset": "papr"}, "bmn: unknown preset 'papr'"),
        ("tcanet", {"width": 60, "heads": 4, "groups": 4}, "does not divide 15, a quarter"),
        ("stale", {"text": "klip"}, "no text encoder 'klip'"),
        ("stale", {"prompts": ["a video"]}, "does not hold {} once"),
        ("temporalmaxer", {"ranges": [[0, 4], [8, 8]]}, "ranges: 8 is not below 8"),
        ("temporalmaxer", {"ranges": []}, "ranges: 0 levels"),
        ("temporalmaxer", {"assignment": "simotta"}, "not one of centre, least_cost or simota"),
        ("window_cnn", {"thresholds": [1.5]}, "thresholds.1: 1.5 is not at most 1"),
        ("bilstm", {"dropout": 1}, "dropout: 1 is not below 1"),
        ("bilstm", {"nms": "hart"}, "nms: 'hart' is not one of soft, hard or none"),
        ("bilstm", {"post": {"max_detections": 0}}, "post.max_detections: 0 is not at least 1"),
        ("bilstm", {"post": 3}, "post: 3 is not a mapping"),
    ],
)
def test_options_that_do_not_go_together(name, options, message):
    build = lambda: models.build(name, input_dim=8, num_classes=3, **options)
    if message is None:
        build()
        return
    with pytest.raises(TalError, match=message):
        build()


@pytest.mark.parametrize("value", [0, -3, 2.5, True, "x", None, HUGE, 10**9])
def test_dimensions_of_a_model(value):
    with pytest.raises(TalError, match="input_dim"):
        models.build("bilstm", input_dim=value, num_classes=3)
    with pytest.raises(TalError, match="num_classes"):
        models.build("bilstm", input_dim=3, num_classes=value)


def test_no_two_settings_share_a_name():
    """Else a name given with --set would reach two places."""
    post, recipe = ({f.name for f in fields(kind)} for kind in (PostProcess, Recipe))
    arguments = {"name", "preset", "input_dim", "num_classes"}
    assert not post & recipe and not arguments & (post | recipe)
    for name in models.names():
        config = models.config(name)
        field_names = {f.name for f in fields(config)}
        assert not field_names & (post | recipe | arguments), name
        assert len(option_names(config)) == len(set(option_names(config)))


def test_a_nested_config_is_overridden_by_name_or_by_mapping():
    model = models.build("tcanet", input_dim=8, num_classes=3, nms="hard", min_segment_steps=2)
    assert (model.config.post.nms, model.config.generator_post.nms) == ("hard", "soft")
    before = models.config("tcanet").generator_post
    after = models.config("tcanet", generator_post={"nms_sigma": "0.25"}).generator_post
    assert after.nms_sigma == 0.25 and after.max_detections == before.max_detections == 100
    both = models.config("stale", post={"nms": "hard"}, min_score=0.2).post
    assert (both.nms, both.min_score, both.nms_sigma) == ("hard", 0.2, 0.6)  # 0.6 is the preset's own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": "1e-3"}, None),
        ({"learning_rate": 1e-3, "weight_decay": "5e-2"}, None),
        ({"learning_rate": "four"}, "learning_rate: 'four' is not a number"),
        ({"learning_rate": 0}, "learning_rate: 0 is not above 0"),
        ({"learning_rate": True}, "learning_rate: True is not a number"),
        ({"learning_rate": float("inf")}, "learning_rate: inf is not a finite number"),
        ({"batch_size": "four"}, "batch_size: 'four' is not a whole number"),
        ({"batch_size": HUGE}, "batch_size: a huge integer"),
        ({"epochs": 2.5}, "epochs: 2.5 is not a whole number"),
        ({"epochs": 3.0}, None),
        ({"min_steps": -1}, "min_steps: -1 is not at least 0"),
        ({"shrink": 0.5}, "shrink: 0.5 is not a list"),
        ({"shrink": [0.5]}, "shrink.2 is missing"),
        ({"shrink": [0.9, 0.5]}, "shrink: 0.9 is above 0.5"),
        ({"optimizer": "sgd"}, "optimizer: 'sgd' is not one of adamw or adam"),
        ({"exchange": 1.5}, "exchange: 1.5 is not at most 1"),
        ({"precision": "float8"}, "not one of float32"),
        ({"epoch": 3}, "unknown option 'epoch'.*Did you mean epochs?"),
    ],
)
def test_recipes(options, message):
    if message is None:
        recipe = recipe_for("bilstm", **options)
        assert all(getattr(recipe, name) == float(value) for name, value in options.items())
        return
    for make in (lambda: recipe_for("bilstm", **options), lambda: route("bilstm", "compact", options)):
        with pytest.raises(TalError, match=message):
            make()
    if "epoch" not in options:
        with pytest.raises(TalError, match=message):
            Recipe(**options)  # in Python too


def test_recipes_are_of_models_that_there_are():
    with pytest.raises(TalError, match="Did you mean bilstm?"):
        recipe_for("bilstn")
    with pytest.raises(TalError, match="unknown preset 'papr'"):
        recipe_for("bilstm", "papr")


def test_a_name_goes_where_it_belongs_or_all_are_listed():
    settings = route("tridet", "compact", {"min_steps": 3, "min_segment_steps": 1, "bins": 4, "nms": "hard"})
    assert settings.recipe == {"min_steps": 3}
    assert settings.options == {"min_segment_steps": 1, "bins": 4, "nms": "hard"}
    with pytest.raises(TalError, match="Options of tridet: .*bins.*nms_sigma.*learning_rate") as error:
        route("tridet", "compact", {"lerning_rate": 1}, where="--set")
    assert str(error.value).startswith("--set: unknown option 'lerning_rate'")
    assert str(error.value).endswith("Did you mean learning_rate?")


@dataclass(frozen=True, kw_only=True)
class Sample(Checked):
    """A field of each kind."""

    count: Count = 1
    odd: OddCount = 1
    rate: Positive = 1.0
    plain: int = 0
    some: tuple[Probability, ...] = ()
    choice: Literal["a", "b"] = "a"
    maybe: Count | None = None
    inner: PostProcess = PostProcess()


@given(st.integers(1, 2**53), st.floats(1e-300, 1e300), st.lists(st.floats(0, 1), max_size=3))
def test_text_is_the_number_that_it_shows(count, rate, some):
    made = validate(Sample, {"count": str(count), "rate": repr(rate), "some": [repr(x) for x in some]})
    assert (made.count, made.rate, made.some) == (count, rate, tuple(some))
    assert validate(Sample, {"count": np.int64(count), "rate": np.float64(rate)}) == Sample(
        count=count, rate=rate
    )


@given(
    st.sampled_from(["count", "odd", "rate", "plain", "some", "choice", "maybe", "inner"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
)
def test_any_value_is_taken_or_refused_in_one_line(name, value):
    try:
        made = validate(Sample, {name: value}, where="file.yaml")
    except TalError as error:
        assert str(error).startswith("file.yaml: ") and name in str(error)
        return
    assert not isinstance(value, bool)
    assert Sample(**{name: getattr(made, name)}) == made  # what was taken is taken again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1e-3", None),
        ("a: 5E4", None),
        ("a: " + "9" * 5000, "an integer of 5,000 digits"),
        ("a: 1\na: 2", "'a' is listed twice"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdef", "bcdefg")
            ),
            "more than 200,000 values",
        ),
        ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_yaml(text, message):
    if message is None:
        assert isinstance(parse_yaml(text)["a"], float)
        return
    with pytest.raises(TalError, match=message):
        parse_yaml(text, where="grid.yaml")


def test_a_merged_mapping_may_be_overridden():
    content = parse_yaml("one: &one {a: 1, b: 2}\ntwo: {<<: *one, a: 3}\nthree: *one")
    assert content == {"one": {"a": 1, "b": 2}, "two": {"a": 3, "b": 2}, "three": {"a": 1, "b": 2}}


@pytest.mark.parametrize("device", ["gpu", "tpu", "cuda:", "cuda:x", "CPU", "cuda:-1", "", 3, "cuda:0 "])
def test_devices_that_there_are_not(device, monkeypatch):
    with pytest.raises(TalError, match="unknown device"):
        checked_device(device)
    with pytest.raises(TalError, match="unknown device"):
        checked_device(device, here=False)


@pytest.mark.parametrize(
    ("device", "gpus", "fits"),
    [("cpu", 0, True), ("cuda", 0, False), ("cuda:0", 0, False), ("cuda:1", 2, True), ("cuda:2", 2, False)],
)
def test_devices_of_this_machine(device, gpus, fits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("TAL_DEVICE", device)
    assert checked_device(device, here=False) == device
    if fits:
        assert checked_device(device) == default_device() == device
        return
    with pytest.raises(TalError, match=f"device {device}: there"):
        checked_device(device)
    with pytest.raises(TalError, match="TAL_DEVICE"):
        default_device()


@pytest.mark.parametrize("name", ["hapt", "hapt_first", "a-b.c_1", "7", "v1.3", "x" * 100, "-"])
def test_names_that_become_files(name):
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../../x", "a/b", "a\\b", ".hidden", "x" * 300, "a\0b", "a b", "a:b", "é", "end.", "a\n"]
    + ["con", "NUL.txt", "lpt1", None, 5],
)
def test_names_that_cannot_become_files(name):
    with pytest.raises(TalError, match="cannot be part of a file's name") as error:
        checked_name(name, where="grid.yaml")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Fraction, "0"), (Fraction, "1.01"), (Fraction, "nan"), (Seed, "-1"), (Seed, str(2**32))],
)
def test_numbers_out_of_range(kind, value):
    with pytest.raises(TalError, match=f"'{value}' is not"):
        validate(kind, value)
