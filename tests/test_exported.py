"""Exported folders from anywhere: what is damaged is named, and no program in them runs unasked."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from tal_lib import TalError, models
from tal_lib.cli import main
from tal_lib.cost.isolated import _server
from tal_lib.data.batches import collate, unannotated
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.export import FORMATS, export
from tal_lib.exported import Exported, load_graph, read_about
from tal_lib.process.fork_server import Failed
from tal_lib.training import Trained

SPEC = FeatureSpec(stride_s=0.5, window_s=1.0, streams={"rgb": 3, "flow": 2})


def model_of(name="window_cnn", stream=None, **options):
    torch.manual_seed(0)
    columns = SPEC.columns(stream)
    model = models.build(name, input_dim=columns.stop - columns.start, num_classes=2, **options).eval()
    return Trained(model, ("x", "y"), SPEC, stream)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder as `export` writes it, which no test changes."""
    return export(model_of(), tmp_path_factory.mktemp("exported") / "model", "torchscript")


@pytest.fixture
def folder(exported, tmp_path):
    """A copy of it. The graph is trusted: this process has written the same bytes."""
    return shutil.copytree(exported, tmp_path / "model")


class WritesFiles(nn.Module):
    """A model that writes a file whenever it runs."""

    def __init__(self, path):
        super().__init__()
        self.path: str = str(path)

    def forward(self, features: torch.Tensor, mask: torch.Tensor):
        torch.save(features, self.path)
        return (features.transpose(1, 2)[..., :3],)


def hostile_torchscript(folder, flag):
    torch.jit.script(WritesFiles(flag)).save(folder / "model.ts")


def hostile_pt2(folder, flag):
    """A pt2 archive with a size that is a formula with a call in it."""

    class Double(nn.Module):
        def forward(self, features, mask):
            return (features * features.shape[2],)

    example = (torch.randn(1, 5, 6), torch.ones(1, 6, dtype=torch.bool))
    sizes = ({2: torch.export.Dim.DYNAMIC}, {1: torch.export.Dim.DYNAMIC})
    plain = folder / "plain.pt2"
    torch.export.save(torch.export.export(Double(), example, dynamic_shapes=sizes), plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(folder / "model.pt2", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("models/model.json"):
                harm = f"__import__('pathlib').Path('{flag}').touch() or Symbol("
                assert b"Symbol(" in data
                data = data.replace(b"Symbol(", harm.encode())
            new.writestr(name, data)


@pytest.mark.parametrize(("form", "make"), [("torchscript", hostile_torchscript), ("pt2", hostile_pt2)])
def test_programs_do_not_run_unless_they_are_trusted(form, make, folder, tmp_path, capsys):
    flag, features = tmp_path / "written", tmp_path / "f.npy"
    np.save(features, np.ones((6, 5), np.float32))
    make(folder, flag)
    about = json.loads((folder / "model.json").read_text()) | {"format": form, "file": FORMATS[form]}
    (folder / "model.json").write_text(json.dumps(about))
    arguments = [str(features), "--model", str(folder)]
    for command in (
        ["detect", *arguments, "--out", str(tmp_path / "out")],
        ["serve", *arguments, "--port", "0"],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert FORMATS[form] in error and "can run any code" in error and "--trust" in error
    with pytest.raises(TalError, match="trust=True"):
        load_graph(folder / FORMATS[form])
    assert not flag.exists() and not (tmp_path / "out").exists()
    main(["detect", *arguments, "--out", str(tmp_path / "out"), "--trust"])
    assert flag.exists()  # the harm is real


def test_trusted_torchscript_detects_as_its_model(tmp_path):
    trained = model_of(stride=1)
    folder = export(trained, tmp_path, "torchscript")
    item = unannotated("a", torch.randn(5, 40), 21.0, 0.5, 1.0, ("x", "y"))
    ours, theirs = (
        detector.detect(collate([item]))[0] for detector in (trained.model, Exported(folder, trust=True))
    )
    assert len(ours) and np.allclose(ours.score, theirs.score, atol=1e-5)


def test_what_another_process_wrote_needs_trust(tmp_path):
    folder = export(model_of(), tmp_path, "torchscript")
    Exported(folder)  # this process knows what it has written
    with pytest.raises(Failed, match="can run any code"):
        _server(1).run("tal_lib.exported:Exported", folder=str(folder))


def test_onnx_is_preferred_where_it_is_of_the_same_weights(tmp_path):
    pytest.importorskip("onnxruntime")
    folder = export(model_of(), tmp_path, "onnx")
    export(model_of(), folder, "torchscript")
    assert read_about(folder).files == ["model.onnx", "model.ts"]
    assert Exported(folder).path.name == "model.onnx"
    other = model_of()
    nn.init.zeros_(other.model.out.bias)
    export(other, folder, "torchscript")  # the ONNX file beside it is of another model now
    assert read_about(folder).files == ["model.ts"] and Exported(folder).path.name == "model.ts"


DAMAGES = [
    (("classes",), ["x"], "classes: 1 names for spec.num_classes: 2"),
    (("classes",), ["x", "x"], "classes: 'x' is listed twice"),
    (("classes",), 3, "classes: 3 is not a list"),
    (("feature_spec",), None, "feature_spec: None is not a mapping"),
    (("feature_spec", "stride_s"), -0.5, "feature_spec.stride_s: -0.5 is not above 0"),
    (("feature_spec", "streams"), {"rgb": 3}, "3 columns for spec.input_dim: 5"),
    (("stream",), "depth", "'depth' is not among feature_spec.streams"),
    (("model",), [], "spec: .* is not a mapping"),
    (("model", "name"), "nonesuch", "spec: .*nonesuch"),
    (("model", "overrides"), {"nonesuch": 1}, "spec: .*nonesuch"),
    (("decoded",), True, "decoded: True does not fit window_cnn"),
    (("decoded",), "yes and no", "decoded: 'yes and no' is not true or false"),
    (("file",), "../model.ts", "file: '../model.ts' is not the name of"),
    (("file",), "/etc/passwd", "file: '/etc/passwd' is not the name of"),
    (("file",), "none.onnx", "none.onnx: file not found"),
    (("files",), ["a/model.onnx"], "files.1: 'a/model.onnx' is not the name of"),
    (("format",), "tflite", "format: 'tflite' is not one of"),
    (("outputs",), "scores", "outputs: 'scores' is not a list"),
    (("post",), None, "post: None is not a mapping"),
]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    DAMAGES,
    ids=[f"{'.'.join(place)}-{i}" for i, (place, *_) in enumerate(DAMAGES)],
)
def test_a_damaged_field_is_named(folder, place, value, message):
    about = json.loads((folder / "model.json").read_text())
    target = about
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(TalError, match=message) as error:
        Exported(folder)
    text = str(error.value)
    assert text.startswith(str(folder)) and len(text.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "onnx"', '{"file": 1, "file": 2}', "\x00"])
def test_a_damaged_description_is_named(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(TalError, match="model.json"):
        Exported(folder)


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2", "model.ts"])
def test_a_damaged_graph_is_named(tmp_path, name):
    if name == "model.onnx":
        pytest.importorskip("onnxruntime")
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(TalError, match=f"{name}: not a readable graph"):
        load_graph(path, trust=True)


def test_a_graph_of_another_model_is_named(tmp_path):
    small = {"width": 16, "head_width": 16, "ranges": ((0, 4), (4, 10_000))}
    trained = model_of("temporalmaxer", **small)
    exported = Exported(export(trained, tmp_path, "torchscript"))
    item = collate([unannotated("a", torch.randn(5, 40), 21.0, 0.5, 1.0, ("x", "y"))])
    exported.detect(item)
    good = exported.graph
    for graph, message in (
        (lambda *given: good(*given)[:1], "the graph gives .* expected segments"),
        (lambda *given: [part[:, :-1] for part in good(*given)], "the graph gives .* expected segments"),
        (lambda *given: [part * np.nan for part in good(*given)], "the graph gives NaN or infinite"),
    ):
        exported.graph = graph
        with pytest.raises(TalError, match=f"model.ts: {message}"):
            exported.detect(item)
