"""ActionFormer, TriDet and TemporalMaxer against their authors' code: the three share a form.

Their models take a list of recordings, pad each, and give detections. A file of this folder names the clone,
its setting for THUMOS14, and the heads that are compared.
"""

import importlib
import importlib.util
import itertools
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

from experiments.authors import Row, importable, largest_difference, parameters, perturb, pyramid_training
from tal_lib import models
from tal_lib.cost import count_macs
from tal_lib.data.batches import Batch, Item, collate, unannotated
from tal_lib.errors import TalError
from tal_lib.models import Detector
from tal_lib.models.parts.detector import override

LENGTHS = (100, 577, 2304, 5000)
STRIDE_FRAMES, WINDOW_FRAMES, FPS = 4, 16, 30.0  # of their THUMOS14 features
TIE = 1e-4  # scores that differ by less may stand in either order
TIMED = 2304  # steps
ROUNDS = 5  # of timing, ours and theirs in turn
COMPILED_NMS = importlib.util.find_spec("nms_1d_cpu") is not None  # asked before a stand-in is there


@dataclass(frozen=True)
class Published:
    """One authors' repository: its THUMOS14 setting, and the heads whose outputs are compared."""

    model: str
    setting: str  # a file of their folder configs
    heads: tuple[str, ...] = ("cls_head", "reg_head")
    activitynet: str | None = None  # their setting for ActivityNet


def rows(clone: Path, published: Published) -> Iterator[Row]:
    """All rows of one model."""
    theirs = authors_model(clone, published)
    ours = released_stand_in(published.model, theirs)
    yield from count_rows(published, ours, theirs)
    yield from forward_rows(published, ours, theirs)
    yield from decoding_rows(published, ours, theirs)
    yield from time_rows(published, theirs)
    yield from pyramid_training.rows(
        pyramid_training.Clone(clone, published.model, published.setting, stand_ins(), published.activitynet)
    )


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
    return perturb(model, equal=0.1).eval()


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
            torch.cat(
                [out[..., :size] for out, size in zip(getattr(self.theirs, head)(levels, masks), sizes)], 2
            ).transpose(1, 2)
            for head in self.heads
        )


def features_of(steps: int, columns: int = 2048) -> Tensor:
    """Random features (1, D, T), the same at every call."""
    return torch.randn(1, columns, steps, generator=torch.Generator().manual_seed(steps))


# counts and outputs


def count_rows(published: Published, ours: Detector, theirs: nn.Module) -> Iterator[Row]:
    """Parameters, and MACs at the length to which they pad."""
    name, counts = published.model, (parameters(ours), parameters(theirs))
    difference = abs(counts[0] - counts[1])
    yield Row(name, "parameters", "K = 20, D = 2048", *counts, difference, 0, "trainable parameters, counted")
    network = TheirNetwork(theirs, published.heads)
    macs = [count_macs(model, ours.input_dim, TIMED)[0] for model in (ours, network)]
    how = "one counter (tal_lib.cost.count_macs) for both networks; the difference is relative"
    yield Row(name, "MACs", f"T = {TIMED}", *macs, abs(macs[0] / macs[1] - 1), 2e-3, how)


@torch.no_grad()
def forward_rows(
    published: Published, ours: Detector, theirs: nn.Module, lengths=LENGTHS, setting: str = ""
) -> Iterator[Row]:
    """Raw outputs of every head at some lengths, in float32 and in float64; `setting` is in the rows."""
    network = TheirNetwork(theirs, published.heads)
    how = "perturbed weights through load_checkpoint; every raw output at every point of the recording"
    # float64 tells rounding from another formula
    for kind, steps in itertools.product((torch.float32, torch.float64), lengths):
        features = features_of(steps, ours.input_dim).to(kind)
        outputs = [output.flatten(2) for output in ours.to(kind)(features)], list(network.to(kind)(features))
        largest = [max(float(output.abs().max()) for output in side) for side in outputs]
        case = f"{setting}T = {steps}" + (", float64" if kind == torch.float64 else "")
        limit = 1e-9 if kind == torch.float64 else 2e-4  # rounding alone: theirs is 9e-5 from float64
        yield Row(published.model, "forward", case, *largest, largest_difference(*outputs), limit, how)
    ours.float(), theirs.float()


# detections


def recording_of(steps: int) -> dict:
    """One recording in their form. It ends before the last steps' windows, so segments are clipped."""
    return {
        "video_id": "recording",
        "feats": features_of(steps)[0],
        "fps": FPS,
        "duration": steps * STRIDE_FRAMES / FPS,
        "feat_stride": STRIDE_FRAMES,
        "feat_num_frames": WINDOW_FRAMES,
    }


def batch_of(ours: Detector, recording: dict) -> Batch:
    """A recording in their form as a batch of ours; class `07` has index 7."""
    classes = tuple(f"{number:02d}" for number in range(ours.num_classes))
    stride_s, window_s = recording["feat_stride"] / FPS, recording["feat_num_frames"] / FPS
    features, duration = recording["feats"], recording["duration"]
    return collate([unannotated("recording", features, duration, stride_s, window_s, classes)])


def our_table(detections: pd.DataFrame) -> pd.DataFrame:
    """Detections of our model with class indices as labels."""
    return detections.assign(label=detections.label.astype(int))[["start", "end", "label", "score"]]


def their_table(result: dict) -> pd.DataFrame:
    """Detections of their model in our columns."""
    start, end = result["segments"].unbind(1)
    columns = {"start": start, "end": end, "label": result["labels"], "score": result["scores"]}
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


def decoding_rows(published: Published, ours: Detector, theirs: nn.Module) -> Iterator[Row]:
    """Detections of both branches of their post-processing."""
    yield from detection_rows(published, ours, theirs, LENGTHS)
    yield voting_row(published, ours, theirs)


def detection_rows(
    published: Published, ours: Detector, theirs: nn.Module, lengths: tuple[int, ...]
) -> Iterator[Row]:
    """Detections, from features to segments in seconds, in their order, at some lengths."""
    for steps in lengths:
        recording = recording_of(steps)
        with torch.no_grad():
            tables = our_table(ours.detect(batch_of(ours, recording))[0]), their_table(theirs([recording])[0])
        how = "features to detections on both sides"
        yield _decoding_row(published.model, f"T = {steps}", *tables, how)


@torch.no_grad()
def voting_row(published: Published, ours: Detector, theirs: nn.Module) -> Row:
    """Their other branch of post-processing: suppression over all classes, then voting."""
    setting, recording = ours.config, recording_of(577)
    batch = batch_of(ours, recording)
    ours.config = override(setting, multiclass=False, voting_tiou=0.7)  # the pair in docs/fidelity.md
    theirs.test_multiclass_nms = False
    try:
        given = ours.candidates(ours.run(batch), batch.mask)[0]
        lengths = given.segments[:, 1] - given.segments[:, 0]
        long = lengths > setting.post.min_segment_steps  # their network drops shorter ones before
        columns = {name: getattr(given, name)[long] for name in ("segments", "scores", "labels")}
        tables = (
            our_table(ours.detect(batch)[0]),
            their_table(theirs.postprocessing([recording | columns])[0]),
        )
    finally:
        ours.config, theirs.test_multiclass_nms = setting, True
    case = "T = 577, NMS over all classes, then voting"
    # with each side's candidates, the last bit of an output may decide whether a candidate votes
    return _decoding_row(published.model, case, *tables, "the candidates of our network on both sides")


def _decoding_row(model, case, ours, theirs, how):
    difference, exchanged = detections_apart(ours, theirs)
    nms = "compiled" if COMPILED_NMS else "by an exact stand-in"
    how = (
        f"{how}; in order: labels equal, largest difference of seconds and scores; {exchanged} "
        f"stand elsewhere among scores equal to {TIE:g}; their NMS {nms}"
    )
    return Row(model, "decoding", case, len(ours), len(theirs), difference, 1e-3, how)


def detections_apart(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[float, int]:
    """The largest difference of start, end (s) and score, in their order; how many stand at another rank.

    A detection may stand at another rank only among those whose scores differ by less than `TIE`. The
    difference is infinite if the counts differ, or if one of theirs has no counterpart of its label there.
    """
    if len(ours) != len(theirs):
        return float("inf"), 0
    columns = ["start", "end", "score"]
    our_values, their_values = ours[columns].to_numpy(), theirs[columns].to_numpy()
    free, worst, exchanged = np.ones(len(ours), dtype=bool), 0.0, 0
    for rank, (value, label) in enumerate(zip(their_values, theirs.label)):
        near = free & (np.abs(our_values[:, 2] - value[2]) < TIE) & (ours.label == label).to_numpy()
        if not near.any():
            return float("inf"), exchanged
        apart = np.where(near, np.abs(our_values - value).max(1), np.inf)
        free[apart.argmin()] = False
        worst, exchanged = max(worst, float(apart.min())), exchanged + int(apart.argmin() != rank)
    return worst, exchanged


# time


def time_rows(published: Published, theirs: nn.Module) -> Iterator[Row]:
    """Seconds of a forward pass and of a training step on one thread and on all; difference: ours / theirs.

    Ours is without their padding, as a user of this library runs it. At the timed length neither pads.
    """
    free = released_stand_in(published.model, theirs, padding="none")
    network = TheirNetwork(theirs, published.heads)
    batch, recordings = training_batch()
    steps_of = lambda model: torch.optim.AdamW(model.parameters(), 1e-6)
    our_optimizer, their_optimizer = steps_of(free), steps_of(theirs)

    def step(optimizer, loss):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    available = torch.get_num_threads()
    for threads in sorted({1, available}):
        torch.set_num_threads(threads)
        how = f"wall-clock seconds, medians of {ROUNDS}, in turn, on {threads} thread{'s' * (threads > 1)}"
        of = lambda case, seconds: Row(
            published.model, "time", case, *seconds, seconds[0] / seconds[1], None, how
        )
        free.eval()
        theirs.eval()
        for case, steps in ((f"forward, T = {TIMED}", TIMED), ("forward, T = 577; theirs pads", 577)):
            features = features_of(steps)
            with torch.no_grad():
                yield of(case, in_turn(lambda: free(features), lambda: network(features)))
        free.train()
        theirs.train()
        seconds = in_turn(
            lambda: step(our_optimizer, lambda: free.loss(free.run(batch), batch)["total"]),
            lambda: step(their_optimizer, lambda: theirs(recordings)["final_loss"]),
        )
        yield of(f"training step, T = {TIMED}, batch 2", seconds)
    torch.set_num_threads(available)
    theirs.eval()


def training_batch() -> tuple[Batch, list[dict]]:
    """Two recordings of the timed length with 20 segments each, in our form and in theirs."""
    segments = torch.arange(0, 2200, 110.0)[:, None] + torch.tensor([0.0, 40.0])
    recordings = [
        recording_of(TIMED)
        | {"segments": segments, "labels": torch.arange(20), "video_id": f"recording {index}"}
        for index in range(2)
    ]
    classes = tuple(f"{number:02d}" for number in range(20))
    items = [
        Item(
            recording=each["video_id"],
            features=each["feats"],
            duration=each["duration"],
            stride_s=STRIDE_FRAMES / FPS,
            window_s=WINDOW_FRAMES / FPS,
            classes=classes,
            segments=each["segments"],
            labels=each["labels"],
        )
        for each in recordings
    ]
    return collate(items), recordings


def in_turn(*calls) -> list[float]:
    """Median wall-clock seconds of each call. They run in turn, so that a disturbance meets all of them."""
    samples = [[] for _ in calls]
    for _ in range(ROUNDS + 1):  # the first round warms up
        for call, seconds in zip(calls, samples):
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
    return [statistics.median(seconds[1:]) for seconds in samples]
