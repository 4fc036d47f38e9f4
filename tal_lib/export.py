"""Export of a trained model as a folder that runs without this project.

    model.onnx | model.pt2 | model.ts   the graph; time and batch are of any length
    model.json                          classes, feature spec, post-processing, inputs and outputs
    standardise.json                    the statistics that standardise raw features, if the model has them

Inputs: `features` (B, D, T) float32 and `mask` (B, T), true at valid steps. The graph of a pyramid detector
includes decoding. Its outputs are `segments` (B, P, 1 or K, 2) in steps and `scores` (B, P, K). Suppression
turns them into detections (examples/run_onnx.py does it with numpy). The graphs of other models return the
outputs of the network.
"""

import copy
import hashlib
import io
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.fx.experimental import _config as symbolic_shapes

from tal_lib import __version__, models
from tal_lib.disk import disk_error
from tal_lib.errors import TalError
from tal_lib.exported import ABOUT, FORMATS, load_graph, read_about, trust_file
from tal_lib.exported import Exported as Exported
from tal_lib.files import atomic_path, write_json
from tal_lib.models.parts.conv import for_any_length
from tal_lib.models.parts.pyramid import PyramidDetector
from tal_lib.process.remarks import without_remarks
from tal_lib.training.checkpoints import STANDARDISE, Trained
from tal_lib.writing import claim, remove_replaceable

EXAMPLE = (
    2,
    1203,
)  # recordings and steps of the traced example: no size in the graph is 0, 1 or a multiple of a window


class Deployed(nn.Module):
    """The exported module: the network, and for a pyramid detector also its decoding."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.decodes = isinstance(model, PyramidDetector)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(features, mask)
        return self.model.every_point(outputs, mask) if self.decodes else outputs


def export(trained: Trained, folder: str | Path, form: str = "onnx") -> Path:
    """Write the artefact of a trained model; returns the folder.

    Raises:
        TalError: an unknown format, a model that cannot be exported (with the reason), or a graph whose
            outputs differ from the model's.
    """
    if form not in FORMATS:
        raise TalError(f"no export format {form!r}", remedy=f"Choose from {', '.join(FORMATS)}.")
    name = trained.model.spec["name"]
    if trained.model.not_exportable:
        raise TalError(
            f"{name} cannot be exported: {trained.model.not_exportable}",
            remedy="Use `tal train` and `tal_lib` to run it.",
        )
    path = claim(folder, [FORMATS[form], ABOUT, STANDARDISE]) / FORMATS[form]
    folder, deployed = path.parent, Deployed(trained.model.cpu().eval())
    with atomic_path(path) as temporary:
        worst = _write_checked(deployed, form, temporary)
    names = (
        ["segments", "scores"]
        if deployed.decodes
        else [f"output_{i}" for i in range(len(deployed(*example_batch(deployed, 1, 64))))]
    )
    weights = _weights_hash(trained)
    spec = asdict(trained.feature_spec) | {"streams": dict(trained.feature_spec.streams)}
    if trained.statistics is not None:
        write_json(folder / STANDARDISE, trained.statistics.plain(), indent=None)
    else:
        remove_replaceable(folder / STANDARDISE)  # of a model that was exported into this folder before
    write_json(
        path.parent / ABOUT,
        {
            "format": form,
            "file": path.name,
            "weights": weights,
            "files": _graphs_of(folder, weights, path.name),
            "model": models.complete_spec(trained.model),
            "classes": list(trained.classes),
            "feature_spec": spec,
            "stream": trained.stream,
            "standardised": trained.statistics is not None if trained.statistics_stated else None,
            "post": asdict(trained.model.config.post),
            "inputs": ["features", "mask"],
            "outputs": names,
            "decoded": deployed.decodes,
            "largest_difference": worst,
            "tal_lib": __version__,
            "torch": torch.__version__,
        },
    )
    return path.parent


def _write_checked(deployed, form, path):
    """Write a model's graph; returns its largest difference from the model."""
    name = deployed.model.spec["name"]
    try:
        with without_remarks():  # whether the graph is right is measured below
            _WRITERS[form](deployed, example_batch(deployed, *EXAMPLE), path)
    except Exception as error:
        if refusal := disk_error(error, path):
            raise refusal from error
        reason = f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}"
        raise TalError(
            f"{name} cannot be written as {form} ({reason})",
            remedy="Try another format.",
        ) from error
    sizes = ((1, 97), (2, 640), (3, 1203))
    trust_file(path)
    worst = parity(deployed, load_graph(path), sizes)
    if worst > 1e-4 and worst > 2 * rounding(deployed, sizes):
        raise TalError(
            f"the exported graph of {name} differs from the model by {worst:.2g}",
            where=FORMATS[form],
            remedy="Try another format.",
        )
    return worst


def _weights_hash(trained):
    """A hash of a model's spec, weights and classes. All graphs of one trained model share it."""
    sha = hashlib.sha256(repr((trained.model.spec, trained.classes)).encode())
    for name, tensor in trained.model.state_dict().items():
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def _graphs_of(folder, weights, name):
    """Names of all graphs of these weights in a folder, including the new one."""
    try:
        about = read_about(folder)
    except TalError:  # no artefact there yet, or not a readable one
        return [name]
    return sorted({name, *(about.files or [])}) if about.weights == weights else [name]


@torch.no_grad()
def parity(deployed: Deployed, graph, sizes) -> float:
    """Largest difference between a model and its exported graph, over several sizes (recordings, steps).

    The last recording of each batch is padded. Differences are relative to 1 + |value|. Proposals are sorted
    by their segments first, because the order of equally good proposals depends on the machine.
    """
    worst = 0.0
    for batch, steps in sizes:
        features, mask = example_batch(deployed, batch, steps)
        model_outputs = [output.double().numpy() for output in deployed(features, mask)]
        graph_outputs = [np.asarray(output, dtype=float) for output in graph(features.numpy(), mask.numpy())]
        if [output.shape for output in model_outputs] != [output.shape for output in graph_outputs]:
            return float("inf")
        for group in () if deployed.decodes else deployed.model.unordered:
            for outputs in (model_outputs, graph_outputs):
                _sort_proposals(outputs, group)
        worst = max([worst, *map(_largest_difference, model_outputs, graph_outputs)])
    return worst


def rounding(deployed: Deployed, sizes) -> float:
    """The float32 rounding error of a model: its `parity` with the same model in float64."""
    exact = copy.deepcopy(deployed).double()
    return parity(
        deployed,
        lambda features, mask: exact(torch.from_numpy(features).double(), torch.from_numpy(mask)),
        sizes,
    )


def _largest_difference(model_output, graph_output):
    with np.errstate(invalid="ignore"):
        apart = np.where(
            model_output == graph_output,
            0.0,
            np.abs(model_output - graph_output) / (1 + np.abs(model_output)),
        )
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


def _sort_proposals(outputs, group):
    """Sort the rows (B, P, …) of a group of outputs by segments (its first output), then by scores (its
    second)."""
    segments, scores = outputs[group[0]], outputs[group[1]]
    order = np.lexsort((scores, segments[..., 1], segments[..., 0]))
    for index in group:
        outputs[index] = np.stack([rows[row_order] for rows, row_order in zip(outputs[index], order)])


def example_batch(deployed: Deployed, batch: int, steps: int) -> tuple[Tensor, Tensor]:
    """Random features (B, D, T) and their mask (B, T); the last recording is padded."""
    generator = torch.Generator().manual_seed(steps)
    mask = torch.ones(batch, steps, dtype=torch.bool)
    mask[-1, steps - steps // 5 :] = False
    return torch.randn(batch, deployed.model.input_dim, steps, generator=generator) * mask[:, None], mask


def traced_program(deployed: Deployed, example: tuple[Tensor, Tensor]) -> torch.export.ExportedProgram:
    """The graph of a deployed model for any batch and length, traced on the example (features, mask)."""
    sizes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC}, {0: Dim.DYNAMIC, 1: Dim.DYNAMIC})
    with (
        torch.no_grad(),
        for_any_length(),
        symbolic_shapes.patch(backed_size_oblivious=True),
    ):  # do not specialise sizes of 1
        return torch.export.export(deployed, example, dynamic_shapes=sizes, strict=False)


def _write_onnx(deployed, example, path):
    outputs = ["segments", "scores"] if deployed.decodes else None
    from onnx_ir.passes import PassError

    traced = traced_program(deployed, example)
    write = lambda optimize: torch.onnx.export(
        traced,
        dynamo=True,
        input_names=["features", "mask"],
        output_names=outputs,
        verbose=False,
        optimize=optimize,
    )
    try:
        program = write(optimize=True)
    except PassError:  # the inliner fails on large scans; onnxruntime optimizes graphs when it loads them
        program = write(optimize=False)
    program.save(path)


def _write_pt2(deployed, example, path):
    buffer = io.BytesIO()  # torch ends the process if a full disk cuts its file
    torch.export.save(traced_program(deployed, example), buffer)
    path.write_bytes(buffer.getbuffer())


def _write_torchscript(deployed, example, path):
    buffer = io.BytesIO()
    with torch.no_grad(), for_any_length():
        torch.jit.save(torch.jit.trace(deployed, example, check_trace=False), buffer)
    path.write_bytes(buffer.getbuffer())


_WRITERS = {"onnx": _write_onnx, "pt2": _write_pt2, "torchscript": _write_torchscript}
