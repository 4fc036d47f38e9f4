"""Quantization on a CPU: a trained model in bfloat16 and int8, by torch, torchao and ONNX Runtime.

Every variant reports which layers were converted. torch's dynamic quantization converts only linear layers
and LSTMs. It silently skips convolutions, of which a temporal detector mostly consists. One variant therefore
replaces a convolution by a linear layer over unfolded steps.
"""

import copy
import io
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.cost.isolated import isolated
from tal_lib.cost.macs import count_macs
from tal_lib.data import Benchmark, make_item
from tal_lib.errors import TalError
from tal_lib.export import Exported
from tal_lib.files import atomic_path, write_text
from tal_lib.models import Detector
from tal_lib.models.parts.conv import TemporalConv
from tal_lib.process.memory import keep_freed
from tal_lib.process.remarks import without_remarks
from tal_lib.training import Trained, load_model

VARIANTS = {
    "float32": "as trained",
    "bfloat16": "weights and activations",
    "int8 linear": "linear layers and LSTMs (torch, dynamic), convolutions in float32",
    "int8": "the same, convolutions as linear layers over unfolded steps",
    "int8 torchao": "linear layers, unfolded convolutions too (torchao, dynamic activations)",
    "onnx": "float32 graph in ONNX Runtime",
    "onnx int8 dynamic": "graph with scales found at run time",
    "onnx int8 static": "graph with scales found on training recordings",
}
GRAPHS = {"onnx": "model.onnx", "onnx int8 dynamic": "dynamic.onnx", "onnx int8 static": "static.onnx"}
_WEIGHTED = ("Conv", "MatMul", "Gemm", "LSTM")


@dataclass(frozen=True)
class Quantized:
    """A model in one variant, and which part of it was converted."""

    model: Detector
    layers: int  # number of layers with a weight matrix or kernel
    converted: int  # weights in lower precision; a graph may store a weight once per use
    weight_share: float  # share of the layers' weights in lower precision
    mac_share: float | None  # share of the network's MACs in lower precision; None: unknown (graphs)
    file_bytes: int  # weights on disk
    layer_names: tuple[str, ...] | None  # layers in lower precision; None: unknown (graphs)


class LinearConv(nn.Module):
    """A `TemporalConv` as one linear layer over the unfolded steps. Quantizers support linear layers."""

    def __init__(self, conv: TemporalConv):
        super().__init__()
        self.kernel, inputs, outputs = conv.weight.shape
        self.sees_padding = conv.sees_padding
        self.linear = nn.Linear(self.kernel * inputs, outputs, bias=conv.bias is not None)
        self.linear.weight.data = conv.weight.detach().permute(2, 0, 1).reshape(outputs, -1).contiguous()
        if conv.bias is not None:
            self.linear.bias.data = conv.bias.detach().clone()

    def forward(self, x: Tensor, keep: Tensor | None = None, sizes: tuple[int, ...] | None = None) -> Tensor:
        if self.sees_padding and keep is not None:
            return self(x, None, sizes) * keep
        x = x if keep is None else x * keep
        if self.kernel == 1:
            return self.linear(x)
        if sizes is not None:
            return torch.cat([self(sequence) for sequence in x.split(sizes, 1)], 1)
        padded = F.pad(x, (0, 0, self.kernel // 2, self.kernel // 2))
        return self.linear(torch.cat([padded[:, tap : tap + x.shape[1]] for tap in range(self.kernel)], -1))


def with_linear_convolutions(model: nn.Module) -> nn.Module:
    """Replace every ungrouped `TemporalConv` within a model by a `LinearConv`, in place."""
    for name, child in model.named_children():
        if isinstance(child, TemporalConv) and child.groups == 1:
            setattr(model, name, LinearConv(child))
        else:
            with_linear_convolutions(child)
    return model


def quantize(
    trained: Trained, variant: str, folder: str | Path | None = None, *, threads: int | None = None
) -> Quantized:
    """A trained model in one of `VARIANTS`. The given model is not changed.

    Args:
        folder: of the graph variants: folder that `write_graphs` has filled.
        threads: threads of ONNX Runtime.

    Raises:
        TalError: an unknown variant, or a graph that is missing.
    """
    if variant not in VARIANTS:
        raise TalError(f"unknown variant {variant!r}", remedy=f"Choose from {', '.join(VARIANTS)}.")
    network = trained.model
    size = layer_sizes(network)
    total = sum(size.values())
    if variant in GRAPHS:
        path = Path(folder) / GRAPHS[variant]
        problem = path.with_suffix(".problem")
        if problem.is_file():
            raise TalError(
                f"{variant} cannot be made ({problem.read_text().strip()})", remedy="Choose another variant."
            )
        converted = _converted_weights(path)
        return Quantized(
            Exported(folder, file=path.name, threads=threads),
            len(size),
            len(converted),
            min(1.0, sum(converted) / total),
            None,
            path.stat().st_size,
            None,
        )
    model = copy.deepcopy(network).eval().requires_grad_(False)
    if variant == "bfloat16":
        model, converted = model.bfloat16(), set(size)
    elif variant == "float32":
        converted = set()
    else:
        if variant != "int8 linear":
            model = with_linear_convolutions(model)
        model = _torchao(model) if variant == "int8 torchao" else _dynamic(model)
        converted = {
            name.removesuffix(".linear") for name, module in model.named_modules() if _is_int8(module)
        } & set(size)
    # bfloat16 also converts the products of activations
    share = 1.0 if variant == "bfloat16" else _mac_share(network, converted)
    return Quantized(
        model,
        len(size),
        len(converted),
        sum(size[name] for name in converted) / total,
        share,
        _file_bytes(model),
        tuple(sorted(converted)),
    )


def layer_sizes(network: nn.Module) -> dict[str, int]:
    """Name → number of weights of every layer that has a matrix or a kernel."""
    return {name: weights for name, module in network.named_modules() if (weights := _matrix(module))}


def _matrix(module):
    """Number of weights in a layer's matrices or kernels; 0 if it has none."""
    known = isinstance(module, nn.Linear | nn.LSTM | nn.modules.conv._ConvNd) or hasattr(module, "kernel")
    return (
        sum(parameter.numel() for parameter in module.parameters(recurse=False) if parameter.ndim > 1)
        if known
        else 0
    )


def _dynamic(model):
    with without_remarks():  # deprecated in favour of torchao, which is another variant here
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear, nn.LSTM}, dtype=torch.qint8)


def _torchao(model):
    try:
        with without_remarks():  # of kernels for other processors
            from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError:
        raise TalError(
            "torchao is not installed", remedy="In the clone: pip install -e '.[quantization]'"
        ) from None
    with without_remarks():
        quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return model


def _is_int8(module):
    weight = getattr(module, "weight", None)
    kinds = [type(module), type(weight), type(getattr(weight, "data", None))]
    return "quantized" in kinds[0].__module__ or any("torchao" in kind.__module__ for kind in kinds[1:])


def _mac_share(network, converted, steps=720):
    """Share of the MACs in converted layers."""
    counted = [0]

    def count(module, inputs, output):
        output = output[0] if isinstance(output, tuple) else output
        per_step = _matrix(module) if isinstance(module, nn.LSTM) else _matrix(module) / output.shape[-1]
        counted[0] += per_step * (
            inputs[0].shape[:-1].numel() if isinstance(module, nn.LSTM) else output.numel()
        )

    hooks = [
        module.register_forward_hook(count) for name, module in network.named_modules() if name in converted
    ]
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, network.input_dim, steps))
    finally:
        for hook in hooks:
            hook.remove()
    return counted[0] / count_macs(network, network.input_dim, steps)[0]


def _file_bytes(model):
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell()


def write_graphs(
    folder: str | Path, benchmark: Benchmark, recordings: list[str], stream: str | None = None
) -> None:
    """Write int8 graphs beside an exported `model.onnx`. Static scales are calibrated on the given
    recordings.

    If a graph cannot be written, a `.problem` file is written, and `quantize` raises its text. Only products
    with a constant weight are converted. Products of activations (attention) stay in float32.
    """
    from onnxruntime import quantization as ort

    folder = Path(folder)

    class Recordings(ort.CalibrationDataReader):
        def __init__(self):
            self.left = iter(recordings)

        def get_next(self):
            recording = next(self.left, None)
            if recording is None:
                return None
            features = make_item(benchmark, recording, stream).features[None].numpy()
            return {"features": features, "mask": np.ones((1, features.shape[2]), dtype=bool)}

    with without_remarks():
        whole = folder / GRAPHS["onnx"]
        shared = {
            "nodes_to_quantize": [node.name for node, weight in _weighted_nodes(whole) if weight],
            "per_channel": True,
            "weight_type": ort.QuantType.QInt8,
        }
        for variant, write in (
            ("onnx int8 dynamic", lambda path: ort.quantize_dynamic(whole, path, **shared)),
            (
                "onnx int8 static",
                lambda path: ort.quantize_static(
                    whole, path, Recordings(), activation_type=ort.QuantType.QUInt8, **shared
                ),
            ),
        ):
            path = folder / GRAPHS[variant]
            try:
                with atomic_path(path) as temporary:
                    write(temporary)
            except TalError:
                raise
            except Exception as error:  # ONNX Runtime's quantizer does not support every graph
                write_text(
                    path.with_suffix(".problem"),
                    f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}\n",
                )


def _weighted_nodes(path):
    """(node, elements of its constant weight) of a graph's products; 0 if both inputs are computed."""
    import onnx

    graph = onnx.load(path).graph
    known = {initializer.name: int(np.prod(initializer.dims)) for initializer in graph.initializer}
    return [
        (node, max((known.get(name, 0) for name in node.input[1:2]), default=0))
        for node in graph.node
        if node.op_type in _WEIGHTED
    ]


def _converted_weights(path):
    """Sizes of a graph's int8 weights. A weight that several nodes share counts once."""
    import onnx

    graph = onnx.load(path).graph
    known = {
        initializer.name: (int(np.prod(initializer.dims)), initializer.data_type)
        for initializer in graph.initializer
    }
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    names = {
        source.get(node.input[1], node.input[1])
        for node in graph.node
        if node.op_type
        in (*_WEIGHTED, "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
    }
    small = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    return [
        known[name][0] for name in names if name in known and known[name][1] in small and known[name][0] > 1
    ]


def compare_latency(
    checkpoint: str | Path,
    variants: list[str],
    length: int,
    *,
    folder: str | Path | None = None,
    threads: int = 1,
    min_seconds: float = 1.0,
) -> list[dict]:
    """Seconds of the network alone in each variant, for one recording of random features.

    All variants run in one fresh process and take turns, call by call. A drift of the machine then hits all
    of them, so their ratios hold. Rows: `variant, latency_s_median, latency_s_p10, latency_s_p90,
    latency_samples`. min_seconds: per variant.
    """
    return isolated(
        _compare,
        f"{Path(checkpoint).name} at {length} steps",
        threads,
        checkpoint=str(checkpoint),
        variants=list(variants),
        length=length,
        folder=folder and str(folder),
        min_seconds=min_seconds,
    )


def _compare(checkpoint, variants, length, folder, threads, min_seconds):
    torch.set_num_threads(threads)
    keep_freed()
    trained, mask = load_model(checkpoint), torch.ones(1, length, dtype=torch.bool)
    models = {variant: quantize(trained, variant, folder, threads=threads).model for variant in variants}
    plain = torch.randn(1, trained.model.input_dim, length)
    features = {variant: plain.bfloat16() if variant == "bfloat16" else plain for variant in variants}
    samples = {variant: [] for variant in variants}
    with torch.inference_mode():
        for _ in range(2):
            for variant, model in models.items():
                model(features[variant], mask if variant in GRAPHS else None)
        began = time.perf_counter()
        while len(samples[variants[0]]) < 5 or time.perf_counter() - began < min_seconds * len(variants):
            for variant, model in models.items():
                start = time.perf_counter()
                model(features[variant], mask if variant in GRAPHS else None)
                samples[variant].append(time.perf_counter() - start)
    return [
        {
            "variant": variant,
            "latency_s_median": statistics.median(measured),
            "latency_s_p10": float(np.percentile(measured, 10)),
            "latency_s_p90": float(np.percentile(measured, 90)),
            "latency_samples": len(measured),
        }
        for variant, measured in samples.items()
    ]
