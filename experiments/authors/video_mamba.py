"""ActionMamba beside OpenGVLab/video-mamba-suite: block, detector, loss, gradient, detections, start.

Their scan is a CUDA kernel; on a CPU their own plain-PyTorch reference of it (`selective_scan_ref`) takes its
place, after a causal convolution. The folder FOLDER is a clone of their whole repository; einops and joblib
are needed. Their code pads a shorter recording to the length of its setting, which changes its outputs, so
detections are compared at lengths without padding.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.authors import Row, importable, in_float64, largest_difference, parameters, perturb, pyramids
from experiments.authors.pyramid_training import gradient_rows, recordings, their_form
from tal_lib import models
from tal_lib.cost.macs import count_call
from tal_lib.models import Detector
from tal_lib.models.parts.blocks import DropPath
from tal_lib.models.released import _translated

FOLDER = "video-mamba-suite"
MODELS = ("action_mamba",)
PROJECT = Path("video-mamba-suite/temporal-action-localization")
PUBLISHED_LENGTH = 2304  # of their configuration
LENGTHS = (64, 577, PUBLISHED_LENGTH)
SETTINGS = {"paper": "mamba_thumos_new.yaml", "paper_activitynet": "mamba_anet_new.yaml"}
COLUMNS = 2048  # of I3D
COUNTED, LEARNED = 64, 576  # steps: their reference of the scan is a loop over the steps
DECODED = (96, 576, PUBLISHED_LENGTH, 5024)  # multiples of the coarsest stride: no padding
DIFFERENTIATED = 192  # the backward pass of that loop takes a time that grows with the square of the steps
REFERENCE = "weights perturbed and copied; their selective_scan_ref in place of the CUDA kernel"


@contextmanager
def their_modules(clone: Path) -> Iterator[tuple[ModuleType, ModuleType]]:
    """Their module of the DBM block and their `libs.modeling`, with the compiled parts replaced."""
    names = ("causal_conv1d", "causal_conv1d_cuda", "selective_scan_cuda", "nms_1d_cpu", "mamba_ssm")
    stand_ins = {name: ModuleType(name) for name in names} | pyramids.stand_ins()
    stand_ins["causal_conv1d"].causal_conv1d_fn = causal_convolution  # pyright: ignore[reportAttributeAccessIssue]
    stand_ins["causal_conv1d"].causal_conv1d_update = None  # pyright: ignore[reportAttributeAccessIssue]
    stand_ins["mamba_ssm"].__path__ = [str(clone / "mamba" / "mamba_ssm")]
    with (
        importable(clone / PROJECT, "libs", "mamba_ssm", stand_ins=stand_ins),
        patch.object(torch.jit, "script", lambda function: function),  # compiled losses stay in float32
    ):
        import libs.modeling  # pyright: ignore[reportMissingImports]
        import mamba_ssm.modules.mamba_new as block  # pyright: ignore[reportMissingImports]
        from mamba_ssm.ops.selective_scan_interface import (  # pyright: ignore[reportMissingImports]
            selective_scan_ref,
        )

        def without_kernel(xz, kernel, bias, projection, step, a, b, c, d, delta_bias, delta_softplus):
            """What their fused kernel computes, from their reference of the scan."""
            x, gate = xz.chunk(2, 1)
            x = causal_convolution(x, kernel[:, 0], bias, "silu")
            rate, b, c = torch.einsum("bdl,rd->brl", x, projection).split(
                [step.shape[1], *[a.shape[1]] * 2], 1
            )
            delta = torch.einsum("brl,dr->bdl", rate, step)
            return selective_scan_ref(x, delta, a, b, c, d, gate, delta_bias, delta_softplus)

        block.mamba_inner_fn_no_out_proj = without_kernel
        yield block, libs.modeling


def causal_convolution(x: Tensor, kernel: Tensor, bias: Tensor, activation: str) -> Tensor:
    """(B, C, T) with kernel (C, k) → same: each step sees itself and the k − 1 before it; then SiLU."""
    assert activation == "silu"
    return F.silu(F.conv1d(F.pad(x, (kernel.shape[1] - 1, 0)), kernel[:, None], bias, groups=len(kernel)))


def our_tensors(theirs: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their model by our names and in our layout."""
    names = {
        ".mamba.in_proj.": ".mixer.inner.",
        ".mamba.out_proj.": ".mixer.out.",
        ".mamba.conv1d.": ".mixer.scan.conv.",
        ".mamba.x_proj.": ".mixer.scan.parameters_of.",
        ".mamba.dt_proj.": ".mixer.scan.step.",
        ".mamba.A_log": ".mixer.scan.log_a",
        ".mamba.D": ".mixer.scan.skip",
        ".drop_path.": ".drop.",
    }
    tensors = {}
    for key, value in theirs.items():
        for name, our_name in names.items():
            if name in key:
                key = key.replace(name, our_name)
                break
        tensors[key] = in_our_order(value) if key.endswith("mixer.inner.weight") else value
    translated, problems = _translated(tensors, target)
    assert not problems, problems
    return translated


def in_our_order(projection: Tensor) -> Tensor:
    """Their projection has signal and gate of a direction together; ours both signals, then both gates."""
    signal, gate, back_signal, back_gate = projection.chunk(4)
    return torch.cat([signal, back_signal, gate, back_gate])


def rows(clone: Path, model: str) -> Iterator[Row]:
    """All rows of the fidelity table."""
    with their_modules(clone) as (block, modeling):
        with torch.no_grad():
            yield from block_rows(block, model)
            yield from detector_rows(modeling, clone, model)
            yield from start_rows(modeling, clone, model)
        for preset in SETTINGS:
            yield from loss_rows(modeling, clone, model, preset)
        for kind in (torch.float32, torch.float64):
            yield from learning_rows(modeling, clone, model, kind)


def block_rows(block: ModuleType, model: str) -> Iterator[Row]:
    """One DBM block of width 512."""
    torch.manual_seed(0)
    theirs = perturb(block.Mamba(512, d_conv=4, expand=1)).eval()
    our_model = models.build(model, input_dim=2048, num_classes=20, preset="paper").eval()
    ours = our_model.stem[0].mixer
    count = parameters(ours), parameters(theirs)
    yield Row(model, "parameters", "DBM block, D = 512", *count, abs(count[0] - count[1]), 0.0, "counted")
    prefix = "stem.0.mamba."
    state = {f"backbone.{prefix}{key}": value for key, value in theirs.state_dict().items()}
    target = {key: value for key, value in our_model.state_dict().items() if key.startswith("stem.0.mixer.")}
    our_model.load_state_dict(our_tensors(state, target), strict=False)
    x = torch.randn(2, 200, 512, generator=torch.Generator().manual_seed(1))
    yield Row(
        model,
        "forward",
        "DBM block, T = 200",
        "",
        "",
        largest_difference(ours(x, None), theirs(x)),
        1e-5,
        REFERENCE,
    )


def detector_rows(modeling: ModuleType, clone: Path, model: str) -> Iterator[Row]:
    """The detector, with and without padding, its detections, and its stochastic depth."""
    theirs = perturb(their_detector(modeling, clone)).eval()
    ours = {eps: our_detector(model, theirs, norm_eps=eps).eval() for eps in (1e-5, 1e-6)}
    count = parameters(ours[1e-6]), parameters(theirs)
    yield Row(
        model,
        "parameters",
        "detector, 2048 columns, K = 20",
        *count,
        abs(count[0] - count[1]),
        0.0,
        "counted",
    )
    for steps in LENGTHS:
        padded = -(-steps // 32) * 32  # the coarsest level strides 32 steps
        x = torch.randn(1, 2048, steps, generator=torch.Generator().manual_seed(steps))
        outputs = raw_outputs(theirs, x, padded)
        how = f"{REFERENCE}; {f'they pad to {padded} steps' if padded > steps else 'all steps valid'}"
        for eps, limit in ((1e-5, 1e-4), (1e-6, None)):
            difference = largest_difference(list(ours[eps](x)), outputs)
            case = f"T = {steps}, norm_eps {eps:g}"
            yield Row(model, "forward", case, "", "", difference, None if padded > steps else limit, how)
    yield macs_row(model, ours[1e-5], theirs)
    published = pyramids.Published(model, SETTINGS["paper"])
    for steps in DECODED:
        theirs.max_seq_len = steps  # they pad to it
        yield from pyramids.detection_rows(published, ours[1e-5], theirs, (steps,))
    yield pyramids.voting_row(published, ours[1e-5], theirs)
    yield Row(
        model,
        "recipe",
        "stochastic depth",
        ours[1e-6].config.drop_path,
        theirs.backbone.stem[0].drop_path.drop_prob,
        0.0,
        0.0,
        "read from their built model",
    )


def macs_row(model: str, ours: Detector, theirs) -> Row:
    """MACs of both. Each product with a state counts, in our scan and in their reference of it."""
    calls = ours, lambda x: raw_outputs(theirs, x, COUNTED)
    macs = [
        count_call(network, call, torch.zeros(1, COLUMNS, COUNTED))[0]
        for network, call in zip((ours, theirs), calls)
    ]
    how = "one counter (tal_lib.cost.count_macs) for both; the difference is relative"
    return Row(model, "MACs", f"T = {COUNTED}", *macs, abs(macs[0] / macs[1] - 1), None, how)


def start_rows(modeling: ModuleType, clone: Path, model: str) -> Iterator[Row]:
    """Initial weights: tensors that are constant, and the range of the bias of Δ."""
    theirs = their_detector(modeling, clone)
    ours = models.build(model, input_dim=COLUMNS, num_classes=20, preset="paper")
    target = {key: value for key, value in ours.state_dict().items() if key != "positives"}
    expected = our_tensors(theirs.state_dict(), target)
    constant = [key for key, value in expected.items() if value.numel() == 1 or float(value.std()) == 0]
    other = [key for key in constant if not torch.allclose(target[key], expected[key], rtol=1e-6)]
    how = "both models as they start; how many tensors have another value"
    same = len(constant) - len(other)
    yield Row(model, "recipe", "initial constants", same, len(constant), len(other), 0, how)
    drawn = [key for key in expected if key.endswith("scan.step.bias")]
    means = [float(torch.cat([side[key] for key in drawn]).mean()) for side in (target, expected)]
    how = f"mean of {len(drawn)} × {len(target[drawn[0]])} values; the bias that they exempt from zero"
    yield Row(model, "recipe", "initial bias of Δ", *means, abs(means[0] - means[1]), 0.15, how)


@torch.no_grad()
def loss_rows(modeling: ModuleType, clone: Path, model: str, preset: str) -> Iterator[Row]:
    """Losses of both on recordings without padding."""
    thumos = preset == "paper"
    steps = LEARNED if thumos else 192
    theirs, ours = learners(modeling, clone, model, preset, max_seq_len=steps)
    start = theirs.loss_normalizer
    how = f"{REFERENCE}; 2 recordings of {steps} steps, drop path off; the difference is relative"
    cases = {"segments anywhere": False, "segments on whole steps": True} if thumos else {"ActivityNet": True}
    for case, whole in cases.items():
        batch = recordings(steps, COLUMNS, whole=whole, classes=ours.num_classes)
        theirs.loss_normalizer = start
        ours.positives.fill_(start)
        published, losses = theirs(their_form(batch)), ours.loss(ours.run(batch), batch)
        for name, key in (
            ("classification", "cls_loss"),
            ("regression", "reg_loss"),
            ("total", "final_loss"),
        ):
            pair = float(losses[name]), float(published[key])
            yield Row(model, "loss", f"{name}, {case}", *pair, abs(pair[0] / pair[1] - 1), 1e-5, how)


def learning_rows(modeling: ModuleType, clone: Path, model: str, kind: torch.dtype) -> Iterator[Row]:
    """Gradients of the total loss, of THUMOS14's setting; float64 tells rounding from another formula."""
    # the width of attention, which their backbone does not have, would forbid this length
    theirs, ours = learners(modeling, clone, model, "paper", max_seq_len=DIFFERENTIATED, n_mha_win_size=1)
    batch = recordings(DIFFERENTIATED, COLUMNS)
    exact = kind == torch.float64
    if exact:
        segments = [each.double() for each in batch.segments]
        batch = replace(batch, features=batch.features.double(), segments=segments)
    with in_float64() if exact else nullcontext():
        ours.to(kind).loss(ours.run(batch), batch)["total"].backward()
        theirs.to(kind)(their_form(batch))["final_loss"].backward()
    how = f"{REFERENCE}; 2 recordings of {DIFFERENTIATED} steps, drop path off; the difference is relative"
    form = {"case": ", float64", "limit": 1e-9} if exact else {}
    yield from gradient_rows(model, ours, theirs, how, translate=our_tensors, **form)


def learners(modeling: ModuleType, clone: Path, model: str, preset: str, **changed):
    """Both detectors with the same weights, in training mode without drop path."""
    theirs = perturb(their_detector(modeling, clone, preset, **changed)).train()
    ours = our_detector(model, theirs, preset, norm_eps=1e-5).train()
    for module in theirs.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    for module in ours.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0
    return theirs, ours


def their_detector(modeling: ModuleType, clone: Path, preset: str = "paper", **changed):
    """Their detector with one of their settings, and I3D's columns."""
    from libs.core import load_config  # pyright: ignore[reportMissingImports]

    config = load_config(str(clone / PROJECT / "configs" / SETTINGS[preset]))
    torch.manual_seed(0)
    return modeling.make_meta_arch(config["model_name"], **config["model"] | {"input_dim": COLUMNS} | changed)


def our_detector(model: str, theirs, preset: str = "paper", **options) -> Detector:
    """Our model with their weights."""
    classes = len(theirs.cls_head.cls_head.conv.weight)
    ours = models.build(model, input_dim=COLUMNS, num_classes=classes, preset=preset, **options)
    target = {key: value for key, value in ours.state_dict().items() if key != "positives"}
    ours.load_state_dict(our_tensors(theirs.state_dict(), target), strict=False)
    return ours


def raw_outputs(theirs, x: Tensor, padded: int) -> list[Tensor]:
    """Their logits (B, P, K) and distances (B, P, 2) at the points of the valid steps of x (B, D, T)."""
    steps = x.shape[2]
    mask = (torch.arange(padded) < steps)[None, None].expand(len(x), 1, -1)
    levels, masks = theirs.neck(*theirs.backbone(F.pad(x, (0, padded - steps)), mask))
    outputs = theirs.cls_head(levels, masks), theirs.reg_head(levels, masks)
    count = [len(range(0, steps, 2**level)) for level in range(len(levels))]
    return [
        torch.cat([part[..., :n] for part, n in zip(kind, count)], -1).transpose(1, 2) for kind in outputs
    ]
