import zipfile

import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data import FeatureSpec
from tal_lib.training import Trained, load_model, save_model


@pytest.fixture
def path(tmp_path):
    model = models.build("window_cnn", input_dim=4, num_classes=2, stride=1)
    spec = FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 4})
    return save_model(tmp_path / "m.pt", Trained(model, ("x", "y"), spec, None))


def test_options_come_back(path):
    assert load_model(path).model.config.stride == 1


def test_broken_checkpoints_are_named(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TalError, match="m.pt.*not a readable checkpoint"):
        load_model(path)
    torch.save([1, 2], path)
    with pytest.raises(TalError, match="m.pt.*holds list"):
        load_model(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(TalError, match="m.pt.*no 'classes'"):
        load_model(path)
    with pytest.raises(TalError, match="not found"):
        load_model(path.with_name("none.pt"))


def changed(content, place, value):
    """A copy of nested mappings with one entry replaced; `value` may be a function of the old one."""
    name, *rest = place
    inner = (
        changed(content[name], rest, value) if rest else value(content[name]) if callable(value) else value
    )
    return {**content, name: inner}


WEIGHT, BIAS = "state_dict", "out.bias"
SPEC = ("feature_spec",)
DAMAGES = [
    (("classes",), ["x"], "classes: 1 names for spec.num_classes: 2"),
    (("classes",), ["x", "x"], "classes: 'x' is listed twice"),
    (("classes",), ["x", ""], "classes.2: '' is not a class name"),
    (("classes",), ["x", 3], "classes.2: 3 is not text"),
    (("classes",), "xy", "classes: 'xy' is not a list"),
    (("classes",), None, "classes: None is not a list"),
    (("classes",), {"x": 1, "y": 2}, "classes: .* is not a list"),
    ((*SPEC,), [1], "feature_spec: .* is not a mapping"),
    ((*SPEC, "stride_s"), -1.0, "feature_spec.stride_s: -1.0 is not above 0"),
    ((*SPEC, "stride_s"), float("nan"), "feature_spec.stride_s: nan is not"),
    ((*SPEC, "window_s"), float("inf"), "feature_spec.window_s: inf is not a finite number"),
    ((*SPEC, "window_s"), "wide", "feature_spec.window_s: 'wide' is not a number"),
    ((*SPEC, "streams"), {"one": 3}, "feature_spec.streams: 3 columns for spec.input_dim: 4"),
    ((*SPEC, "streams"), {"one": 5, "two": -1}, "feature_spec.streams.two.*at least 1"),
    ((*SPEC, "streams"), {}, "feature_spec.streams: 0 columns"),
    ((*SPEC, "streams"), {"one": 4.5}, "feature_spec.streams.one: 4.5 is not a whole number"),
    ((*SPEC,), {"stride_s": 1.0, "streams": {"one": 4}}, "feature_spec.window_s|window_s is missing"),
    ((*SPEC,), lambda old: old | {"stride": 3}, "'stride'"),
    (("stream",), "two", "stream: 'two' is not among feature_spec.streams .one."),
    (("stream",), 3, "stream: 3 is not text"),
    (("format",), 2, "format: 2 is not 1"),
    (("spec",), None, "spec: None is not a mapping"),
    (("spec", "name"), "window_cnm", "spec: .*window_cnm"),
    (("spec", "name"), ["window_cnn"], "spec.name: .* is not text"),
    (("spec", "preset"), "huge", "spec: .*unknown preset 'huge'"),
    (("spec", "input_dim"), 10**9, "spec.input_dim: 1000000000 is not at most"),
    (("spec", "input_dim"), 0, "spec.input_dim: 0 is not at least 1"),
    (("spec", "num_classes"), 5, "classes: 2 names for spec.num_classes: 5"),
    (("spec", "overrides"), [], "spec.overrides: .* is not a mapping"),
    (("spec", "overrides"), {"striide": 1}, "spec: .*striide"),
    (("spec", "overrides"), {"width": "one"}, "spec: no such model can be built"),
    (("spec", "overrides"), {"width": 60_000}, "state_dict: .* has shape|spec: no such model"),
    (("spec", "overrides"), {"nms": 5}, "spec: no such model can be built"),
    ((WEIGHT,), None, "state_dict: NoneType instead of tensors by name"),
    ((WEIGHT,), lambda old: {k: v for k, v in old.items() if k != BIAS}, "tensor out.bias is missing"),
    ((WEIGHT,), lambda old: old | {"more": torch.ones(1)}, "the model has no tensor 'more'"),
    ((WEIGHT,), lambda old: old | {3: torch.ones(1)}, "the model has no tensor 3"),
    ((WEIGHT, BIAS), lambda old: old[:-1], "out.bias has shape"),
    ((WEIGHT, BIAS), lambda old: old.tolist(), "out.bias is list, not a tensor"),
    ((WEIGHT, BIAS), lambda old: old.long(), "out.bias holds torch.int64"),
    ((WEIGHT, BIAS), lambda old: old.bool(), "out.bias holds torch.bool"),
    ((WEIGHT, BIAS), lambda old: old.to(torch.complex64), "out.bias holds torch.complex64"),
    ((WEIGHT, BIAS), lambda old: old.to_sparse(), "out.bias holds torch.float32 .torch.sparse_coo"),
    ((WEIGHT, BIAS), lambda old: old.to("meta"), "out.bias"),
    ((WEIGHT, BIAS), lambda old: torch.full_like(old, float("nan")), "out.bias holds NaN"),
    ((WEIGHT, BIAS), lambda old: torch.full_like(old, float("inf")), "out.bias holds NaN or infinite"),
]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    DAMAGES,
    ids=[f"{'.'.join(place)}-{i}" for i, (place, *_) in enumerate(DAMAGES)],
)
def test_a_damaged_field_is_named(path, place, value, message):
    torch.save(changed(torch.load(path, weights_only=True), place, value), path)
    with pytest.raises(TalError, match=message) as error:
        load_model(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and text.endswith(".") and len(text.splitlines()) == 1


def test_weights_in_lower_precision_are_weights(path):
    content = torch.load(path, weights_only=True)
    torch.save(changed(content, (WEIGHT, BIAS), lambda old: old.bfloat16()), path)
    assert torch.equal(load_model(path).model.out.bias, content[WEIGHT][BIAS].bfloat16().float())


def test_a_compressed_checkpoint_is_not_unpacked(path, monkeypatch):
    monkeypatch.setenv("TAL_LARGEST_GIB", "0.001")
    torch.save({"state_dict": torch.zeros(2_000_000)}, path)
    packed = path.with_name("packed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert packed.stat().st_size < 100_000
    with pytest.raises(TalError, match="packed.pt: the archive would need"):
        load_model(packed)


@pytest.mark.parametrize("name", ["tcanet", "stale", "ssn"])
def test_models_with_constants_and_texts_come_back(name, tmp_path):
    model = models.build(name, input_dim=4, num_classes=2)
    spec = FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 4})
    path = save_model(tmp_path / "m.pt", Trained(model, ("x", "y"), spec, None))
    again = load_model(path).model.state_dict()
    assert all(torch.equal(again[key], value) for key, value in model.state_dict().items())
    torch.save(changed(torch.load(path, weights_only=True), ("spec", "input_dim"), 3), path)
    with pytest.raises(TalError, match="feature_spec.streams: 4 columns"):
        load_model(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"spec": Bomb()}, tmp_path / "m.pt")
    with pytest.raises(TalError):
        load_model(tmp_path / "m.pt")
    assert not (tmp_path / "exploded").exists()
