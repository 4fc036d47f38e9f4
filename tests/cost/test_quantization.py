"""Variants in smaller numbers: what they convert, that they still answer, and that they take turns."""

import logging

import numpy as np
import pytest
import torch

from tal_lib import TalError, models
from tal_lib.cost import VARIANTS, compare_latency, quantize, write_graphs
from tal_lib.cost.quantization import LinearConv, layer_sizes
from tal_lib.data import collate, make_item
from tal_lib.export import Exported, export
from tal_lib.models.parts.conv import TemporalConv
from tal_lib.training import Trained, save_model

SMALL = {"width": 16, "head_width": 16, "ranges": ((0, 4), (4, 8), (8, 10_000))}


@pytest.fixture(scope="module")
def kept(small):
    torch.manual_seed(0)
    model = models.build(
        "temporalmaxer", input_dim=small.feature_spec.dim, num_classes=len(small.classes), **SMALL
    ).eval()
    torch.nn.init.constant_(model.class_out.bias, -1.0)  # so that something is found
    return Trained(model, small.classes, small.feature_spec, None)


@pytest.fixture(scope="module")
def written(kept, small, tmp_path_factory):
    """A folder with an export and its int8 graphs, and what was logged while the graphs were written."""
    folder, remarks, shown = tmp_path_factory.mktemp("artefact"), logging.Handler(), []
    remarks.emit = lambda record: shown.append(record.getMessage())
    export(kept, folder, "onnx")
    logging.getLogger().addHandler(remarks)
    write_graphs(folder, small, small.recordings("train")[:2])
    logging.getLogger().removeHandler(remarks)
    return folder, shown


@pytest.fixture(scope="module")
def artefact(written):
    return written[0]


def test_no_warnings_of_onnx_runtime_are_logged(written):
    assert written[1] == []


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_as_a_linear_layer_is_the_same(kernel, bias):
    torch.manual_seed(kernel)
    conv, x = TemporalConv(5, 4, kernel, bias=bias), torch.randn(2, 11, 5)
    keep = (torch.arange(11) < torch.tensor([11, 6])[:, None]).float()[..., None]
    for sees_padding in (False, True):
        conv.sees_padding = sees_padding
        for more in ((), (keep,), (keep, (7, 4))):
            torch.testing.assert_close(LinearConv(conv)(x, *more), conv(x, *more))


def test_what_is_converted(kept, artefact, small):
    results = {variant: quantize(kept, variant, artefact, threads=1) for variant in VARIANTS}
    layers = results["float32"].layers
    assert layers == 8 and {result.layers for result in results.values()} == {
        layers
    }  # two of the embedding, three a head
    assert (
        results["float32"].converted == results["int8 linear"].converted == results["onnx"].converted == 0
    )  # all its layers are convolutions
    for variant in ("bfloat16", "int8"):
        assert results[variant].converted == layers and results[variant].weight_share == 1
        assert results[variant].mac_share == pytest.approx(1)
        assert set(results[variant].layer_names) == set(layer_sizes(kept.model))
    assert results["int8 linear"].layer_names == () and results["onnx"].layer_names is None
    assert results["onnx int8 static"].converted >= layers and results["onnx int8 static"].weight_share > 0.9
    assert (
        results["bfloat16"].file_bytes < results["float32"].file_bytes
        and results["int8"].file_bytes < results["float32"].file_bytes
    )
    batch = collate([make_item(small, small.recordings("test")[0])])
    with torch.no_grad():
        wanted = kept.model.probabilities(kept.model(batch.features))
    for variant, result in results.items():
        table = result.model.detect(batch)[0]
        assert len(table) > 10 and table.score.between(0, 1).all(), variant
        with torch.no_grad():
            outputs = result.model.run(batch)
        scores = outputs[1] if isinstance(result.model, Exported) else result.model.probabilities(outputs)
        assert (scores - wanted).abs().max() < (
            1e-4 if variant in ("float32", "onnx", "int8 linear") else 0.05
        ), variant


def test_an_exported_graph_detects_as_its_model(kept, artefact, small):
    batch = collate([make_item(small, recording) for recording in small.recordings("test")[:2]])
    ours, exported = kept.model.detect(batch), Exported(artefact).detect(batch)
    for table, exported_table in zip(ours, exported):
        assert (table.label.head(20) == exported_table.label.head(20)).all()
        assert np.allclose(
            table[["start", "end", "score"]].head(20),
            exported_table[["start", "end", "score"]].head(20),
            atol=0.01,
        )
    assert len(Exported(artefact).propose(batch)[0]) == len(kept.model.propose(batch)[0])
    with pytest.raises(TalError, match="exported for classes"):
        Exported(artefact).name_classes(("another",))


def test_variants_take_turns(kept, artefact, tmp_path):
    rows = compare_latency(
        save_model(tmp_path / "model.pt", kept),
        ["float32", "bfloat16", "onnx"],
        64,
        folder=artefact,
        min_seconds=0.02,
    )
    assert [row["variant"] for row in rows] == ["float32", "bfloat16", "onnx"] and len(
        {row["latency_samples"] for row in rows}
    ) == 1
    assert all(0 < row["latency_s_p10"] <= row["latency_s_median"] <= row["latency_s_p90"] for row in rows)


def test_unknown_variant(kept):
    with pytest.raises(TalError, match="unknown variant 'int2'.*bfloat16"):
        quantize(kept, "int2")


def test_a_recurrent_layer_is_converted():
    model = models.build("bilstm", input_dim=8, num_classes=3).eval()
    kept = Trained(model, ("a", "b", "c"), None, None)
    done = quantize(kept, "int8 linear")
    assert (done.converted, done.layers, done.weight_share) == (2, 2, 1.0)
    with torch.no_grad():
        x = torch.randn(1, 8, 90)
        assert (done.model(x)[0] - model(x)[0]).abs().max() < 0.1
