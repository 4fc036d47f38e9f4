"""Malicious or damaged files: every reader returns, or names the file and its fault; none runs the content.

Coverage-guided fuzzing of the same readers, with millions of inputs, is `experiments/fuzz.py`.
"""

import importlib.util
import io
import json
import pickle
import zipfile
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.data.batches import collate, unannotated
from tal_lib.files import REPOSITORY
from tal_lib.models import load_checkpoint
from tal_lib.reading import parse_json
from tal_lib.training import load_model
from tal_lib.validation import validate

spec = importlib.util.spec_from_file_location("fuzz", REPOSITORY / "experiments" / "fuzz.py")
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)


@cache
def seeds(name):
    """What the library writes for a reader. It is made once, and not before a test asks for it."""
    return fuzz.READERS[name][2]()


@pytest.mark.parametrize("name", fuzz.READERS)
def test_what_the_library_writes_is_read(name, tmp_path):
    _, read, _ = fuzz.READERS[name]
    for data in seeds(name)[:2]:
        path = tmp_path / fuzz.READERS[name][0]
        path.parent.mkdir(exist_ok=True)
        if name != "annotations":
            path.write_bytes(data)
            read(path)
        fuzz.try_reader(name, data, tmp_path)


@pytest.mark.parametrize("name", fuzz.READERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_refused_by_name(name, tmp_path, data):
    """Truncated, with bytes changed, inserted, doubled; and arbitrary bytes."""
    raw = bytearray(data.draw(st.sampled_from(seeds(name))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        kind = data.draw(st.sampled_from(["cut", "change", "insert", "double", "all"]))
        new = data.draw(st.binary(min_size=1, max_size=8))
        if kind == "cut":
            raw = raw[:at]
        elif kind == "change":
            raw[at : at + len(new)] = new
        elif kind == "insert":
            raw[at:at] = new
        elif kind == "double":
            raw = raw + raw[at:]
        else:
            raw = bytearray(new)
    fuzz.try_reader(name, bytes(raw), tmp_path)


class Harm:
    """What executes code when it is unpickled."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return exec, (f"open({str(self.flag)!r}, 'w').close()",)


def saved(save, content):
    buffer = io.BytesIO()
    save(buffer, content)
    return buffer.getvalue()


def save_torch(buffer, content):
    torch.save(content, buffer)


def in_zip(member, harm):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, pickle.dumps(harm))
        archive.writestr(member.rpartition("/")[0] + "/version", "3")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", [name for name in fuzz.READERS if name.startswith(("features", "class", "check"))]
)
def test_no_pickle_is_executed(name, tmp_path):
    flag = tmp_path / "executed"
    objects = np.array([Harm(flag)], dtype=object)
    for data in (
        pickle.dumps(Harm(flag)),
        pickle.dumps({"a": Harm(flag)}, 0),
        saved(save_torch, {"features": Harm(flag)}),
        saved(save_torch, {"spec": Harm(flag), "state_dict": {}}),
        saved(lambda buffer, content: np.save(buffer, content, allow_pickle=True), objects),
        saved(lambda buffer, content: np.savez(buffer, features=content), objects),
        in_zip("m/data.pkl", Harm(flag)),
    ):
        fuzz.try_reader(name, data, tmp_path)
        assert not flag.exists(), "code in the file was executed"
    pickle.loads(pickle.dumps(Harm(flag)))
    assert flag.exists()  # the harm is real


def test_a_small_pickle_does_not_take_all_memory(tmp_path):
    """Seven bytes, found by fuzzing, for which Python's unpickler takes more than 8 GB."""
    with pytest.raises(
        TalError, match="s.pkl: not a pickle of plain values .it numbers 2,037,997,921 objects"
    ):
        fuzz.READERS["class_scores_pickle"][1](_written(tmp_path / "s.pkl", b"N" + b"r" + b"aayy" + b"."))


def _written(path, data):
    path.write_bytes(data)
    return path


def test_no_pickle_in_an_authors_checkpoint_is_executed(tmp_path):
    flag, path = tmp_path / "executed", tmp_path / "epoch_034.pth.tar"
    torch.save({"state_dict_ema": Harm(flag)}, path)
    with pytest.raises(TalError, match="epoch_034"):
        load_checkpoint("actionformer", path)
    assert not flag.exists()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(
        st.sampled_from(
            [
                "spec",
                "state_dict",
                "classes",
                "feature_spec",
                "stream",
                "spec.name",
                "spec.input_dim",
                "spec.preset",
                "spec.overrides",
                "spec.num_classes",
                "feature_spec.stride_s",
                "feature_spec.window_s",
                "feature_spec.streams",
                "state_dict.out.bias",
                "format",
                "standardise",
            ]
        ),
        VALUES,
        min_size=1,
        max_size=2,
    )
)
def test_checkpoints_with_other_contents_are_refused_by_name(tmp_path, changes):
    """Well-formed files in which something is not what it should be."""
    content = torch.load(io.BytesIO(seeds("checkpoints")[0]), weights_only=True)
    for name, value in changes.items():
        whole, _, part = name.partition(".")
        if not part:
            content[whole] = value
        elif isinstance(content[whole], dict):
            content[whole] = content[whole] | {part: value}
    path = tmp_path / "m.pt"
    torch.save(content, path)
    try:
        trained = load_model(path)
    except TalError as error:
        assert str(error).startswith(f"{path}: ")
        return
    spec = trained.feature_spec  # it is a working model
    item = unannotated("a", torch.zeros(spec.dim, 5), 9.0, spec.stride_s, spec.window_s, trained.classes)
    assert set(trained.model.detect(collate([item]))[0].label) <= set(trained.classes)


@pytest.mark.parametrize("half", ["\\ud800", "x\\udfff", "\\udc00\\ud800"])
def test_half_a_character_is_refused_where_it_is_read(half):
    with pytest.raises(TalError, match="f.json: contains an incomplete character"):
        parse_json('{"label": "' + half + '"}', where="f.json")
    with pytest.raises(TalError, match="classes.*written as UTF-8"):
        validate(list[str], [json.loads(f'"{half}"')], name="classes")


@pytest.mark.parametrize("whole", ["\\ud83d\\ude00", "\\\\ud800", "\\u00e9"])
def test_whole_characters_are_read(whole):
    assert parse_json(f'["{whole}"]', where="f.json") == json.loads(f'["{whole}"]')
