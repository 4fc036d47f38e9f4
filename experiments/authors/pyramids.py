"""ActionFormer, TriDet and TemporalMaxer against their authors' code: the three share a form.

Their models take a list of recordings, pad each, and give detections. A file of this folder names the clone,
its setting for THUMOS14, and the heads that are compared.
"""

import importlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from experiments.authors import Row, importable, largest_difference, parameters, perturb
from tal_lib import models
from tal_lib.cost import count_macs
from tal_lib.data.batches import collate, unannotated
from tal_lib.errors import TalError
from tal_lib.models import Detector

LENGTHS = (100, 577, 2304, 5000)
STRIDE_FRAMES, WINDOW_FRAMES, FPS = 4, 16, 30.0  # of their THUMOS14 features
TIE = 1e-5  # detections whose scores differ by less may stand in either order
TIMED = 2304  # steps
ROUNDS = 7  # of timing, ours and theirs in turn


@dataclass(frozen=True)
class Published:
    """One authors' repository: its THUMOS14 setting, and the heads whose outputs are compared."""

    model: str
    setting: str  # a file of their folder configs
    heads: tuple[str, ...] = ("cls_head", "reg_head")


def rows(clone: Path, published: Published) -> Iterator[Row]:
    """All rows of one model."""
    theirs = authors_model(clone, published)
    ours = released_stand_in(published.model, theirs)
    yield from count_rows(published, ours, theirs)
    yield from forward_rows(published, ours, theirs)
    yield from decoding_rows(published, ours, theirs)
    yield from time_rows(published, ours, theirs)


# both models


def authors_model(clone: Path, published: Published) -> nn.Module:
    """Their THUMOS14 model with perturbed weights, in evaluation mode."""
    with importable(clone, "libs", stand_ins=stand_ins()):
        core, modeling = importlib.import_module("libs.core"), importlib.import_module("libs.modeling")
        setting = clone / "configs" / published.setting
        if not setting.exists():
            raise TalError("their setting is not there", where=setting, remedy="Clone their repository.")
        config = core.load_config(str(setting))
        torch.manual_seed(0)
        model = modeling.make_meta_arch(config["model_name"], **config["model"])
    return perturb(model, equal=0.2).eval()


def released_stand_in(name: str, theirs: nn.Module, **options) -> Detector:
    """Our `paper` model with their weights, through a file in the form of a released checkpoint."""
    weights = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "epoch_034.pth.tar"
        torch.save({"epoch": 34, "state_dict_ema": weights}, path)
        return models.load_checkpoint(name, path, **options)


def stand_ins() -> dict[str, ModuleType]:
    """Modules in place of what their code imports and is not installed.

    `nms_1d_cpu` is their compiled soft-NMS; `joblib` serves their evaluation, which is not used here.
    """
    compiled, joblib = ModuleType("nms_1d_cpu"), ModuleType("joblib")
    compiled.softnms, joblib.Parallel, joblib.delayed = soft_nms_twin, None, None
    modules = {"nms_1d_cpu": compiled, "joblib": joblib}
    return {name: module for name, module in modules.items() if importlib.util.find_spec(name) is None}


def soft_nms_twin(segs, scores, dets, iou_threshold, sigma, min_score, method) -> Tensor:
    """Their compiled Gaussian soft-NMS, one kept segment at a time: fills `dets`, returns the kept rows."""
    if method != 2:
        raise NotImplementedError("only the Gaussian form")
    segments, left, table = segs.numpy(), scores.numpy().copy(), dets.numpy()
    areas = segments[:, 1] - segments[:, 0] + np.float32(1e-6)
    rest, kept = np.arange(len(left)), []
    while len(rest):
        best = rest[left[rest].argmax()]
        table[len(kept)] = (*segments[best], left[best])
        kept.append(int(best))
        rest = rest[rest != best]
        inter = np.minimum(segments[best, 1], segments[rest, 1]) - np.maximum(
            segments[best, 0], segments[rest, 0]
        )
        inter = np.maximum(inter, np.float32(0))
        overlap = inter / (areas[best] + areas[rest] - inter)
        left[rest] *= np.exp(-(overlap * overlap) / np.float32(sigma))
        rest = rest[left[rest] >= np.float32(min_score)]
    return torch.tensor(kept, dtype=torch.long)


class TheirNetwork(nn.Module):
    """Their network alone: features (1, D, T) → raw outputs (1, P, ·) at the points of these T steps."""

    def __init__(self, theirs: nn.Module, heads: tuple[str, ...]):
        super().__init__()
        self.theirs, self.heads = theirs, heads
        self.train(theirs.training)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        inputs, mask = self.theirs.preprocessing([{"feats": features[0]}])
        levels, masks = self.theirs.neck(*self.theirs.backbone(inputs, mask))
        sizes = [-(-features.shape[2] // 2**level) for level in range(len(levels))]
        return tuple(
            torch.cat([out[..., :size] for out, size in zip(getattr(self.theirs, head)(levels, masks), sizes)], 2)
            .transpose(1, 2)
            for head in self.heads
        )


def features_of(steps: int, columns: int = 2048) -> Tensor:
    """Random features (1, D, T), the same at every call."""
    return torch.randn(1, columns, steps, generator=torch.Generator().manual_seed(steps))


# counts and outputs


def count_rows(published: Published, ours: Detector, theirs: nn.Module) -> Iterator[Row]:
    """Parameters, and MACs at the length to which they pad."""
    counts = parameters(ours), parameters(theirs)
    yield Row(published.model, "parameters", "K = 20, D = 2048", *counts, abs(counts[0] - counts[1]), 0, "counted")
    network = TheirNetwork(theirs, published.heads)
    macs = [count_macs(model, ours.input_dim, TIMED)[0] for model in (ours, network)]
    how = "one counter (tal_lib.cost.count_macs) for both networks; the difference is relative"
    yield Row(published.model, "MACs", f"T = {TIMED}", *macs, abs(macs[0] / macs[1] - 1), None, how)


def forward_rows(published: Published, ours: Detector, theirs: nn.Module) -> Iterator[Row]:
    """Raw outputs of every head at four lengths."""
    network = TheirNetwork(theirs, published.heads)
    how = "perturbed weights through load_checkpoint; every raw output at every point of the recording"
    for steps in LENGTHS:
        features = features_of(steps)
        with torch.no_grad():
            published_outputs = network(features)
            outputs = [output.flatten(2) for output in ours(features)]
        largest = [max(float(output.abs().max()) for output in each) for each in (outputs, published_outputs)]
        difference = largest_difference(outputs, list(published_outputs))
        yield Row(published.model, "forward", f"T = {steps}", *largest, difference, 1e-4, how)
    features, mask = features_of(577).repeat(2, 1, 1), torch.ones(2, 577, dtype=torch.bool)
    mask[1, 100:] = False
