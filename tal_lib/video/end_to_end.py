"""What a video costs from the file to its detections: decoding, features, network, decode and NMS.

Everything is measured in one fresh process. Memory does not grow with the video: pictures are read in
batches, and features wait in a file. The peak memory of extraction and of localization comes first. Then the
process keeps the memory that it frees, as the commands do, and times three passes.

1. Extraction as it is used: one thread decodes while the other describes.
2. Extraction without overlap: the seconds of decoding (with conversion to RGB) and of features, alone.
3. Each model on the features, in windows (`tal_lib.models.parts.streamed`): the seconds of the network, and
   of decoding its outputs and NMS.

The whole way takes the wall time of pass 1 plus the seconds of pass 3. The shares are of the parts alone.
"""

import tempfile
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tal_lib.cost.isolated import isolated
from tal_lib.cost.macs import count_call, count_macs
from tal_lib.cost.meters import Energy, peak_memory
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.errors import TalError
from tal_lib.models import build, build_from
from tal_lib.models.parts.streamed import Streamed, windows_for
from tal_lib.process.memory import keep_freed
from tal_lib.process.parts import Parts, real_time_factor, untimed
from tal_lib.provenance import usable_cores
from tal_lib.training import load_model
from tal_lib.training.checkpoints import WEIGHTS, is_model_folder, warn_if_not_stated
from tal_lib.validation import Count, Size, Threads, unknown_name, validate
from tal_lib.video.backbones import WINDOW, backbone
from tal_lib.video.detect import Ready
from tal_lib.video.extract import Sampling, feature_steps
from tal_lib.video.frames import Reader
from tal_lib.video.live import LiveDetector, sampling_of
from tal_lib.video.stream import WORK, Stream

PARTS = ("decoding", "features", "network", "decode and NMS")
LIVE_PARTS = (*WORK, "drawing")
# Frames that TAL work describes. At 30 frames per second: every 6th (Ullah et al., IEEE Access 2018), every
# 5th (the snippets of BSN and BMN on THUMOS14), every 16th (theirs on ActivityNet). hog-hof: as `tal extract`
# does by default; efficientnet-lite0: as in the benchmark `rendered_cnn`.
SAMPLINGS = {
    "hog-hof": Sampling(fps=16, window=16, stride=8),
    "efficientnet-lite0": Sampling(fps=2, window=2, stride=1),
    "resnet50": Sampling(fps=6, window=1, stride=1),
    "clip-vit-b32": Sampling(fps=1.875, window=1, stride=1),
    "inception_resnet_v2": Sampling(fps=5, window=1, stride=1),
}
TRAINED = ("hog-hof", "efficientnet-lite0")  # their features are real; the others have random weights


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """Cost of one video with one backbone and one model; times in seconds, memory in bytes."""

    video_s: float
    width: int
    height: int
    native_fps: float | None
    file_bytes: int
    backbone: str
    random_weights: bool  # of the backbone: by architecture alone, for its cost
    described_per_s: float  # pictures described per second of video
    steps: int  # feature steps
    stride_s: float
    input_dim: int
    model: str
    preset: str
    num_classes: int
    window: int  # steps that the model sees at once
    overlap: int  # steps
    same_as_whole: bool  # whether windows give the answer of the whole recording
    why_not: str  # why they do not; empty if they do
    threads: int
    decoding_s: float  # each part alone, without overlap
    features_s: float
    network_s: float
    decode_nms_s: float
    extraction_wall_s: float  # decoding and features, overlapped
    total_s: float  # extraction_wall_s + network_s + decode_nms_s
    real_time_factor: float  # total_s per second of video
    extraction_memory_bytes: int  # peak above the process with its weights
    localization_memory_bytes: int
    peak_memory_bytes: int  # their sum: an upper bound of both at once
    feature_macs: int | None  # of the backbone's network; None: it has none
    network_macs: int
    uncounted_ops: str
    energy_j: float | None  # of extraction; None if the machine exposes no counter

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of each part alone."""
        values = (self.decoding_s, self.features_s, self.network_s, self.decode_nms_s)
        return dict(zip(PARTS, values))

    @property
    def shares(self) -> dict[str, float]:
        """Share of each part in their sum; the shares sum to one."""
        total = sum(self.parts.values())
        return {part: seconds / total for part, seconds in self.parts.items()}


def end_to_end(
    video: str | Path,
    backbone_name: str,
    models: list[str | Path],
    *,
    preset: str = "compact",
    num_classes: int = 20,
    window: int | None = None,
    frames_per_step: int | None = None,
    threads: int | None = None,
    options: dict | None = None,
) -> list[EndToEnd]:
    """Measure a video with a backbone, and with each of several models.

    Args:
        models: names of models, which get random weights, or trained ones (`model.pt`, model folders).
        preset, num_classes, options: of the models given by name.
        window: steps that a model sees at once, more where it needs more; by default
            `tal_lib.models.parts.streamed.WINDOW`.
        frames_per_step: described pictures in a step of a trained model (None: 16, as of `tal extract`).
            Models by name have those of `SAMPLINGS`, and beside a trained model those of that one.
        threads: CPU threads (None: all usable cores).

    Raises:
        TalError: the video, backbone or a model is unknown or does not fit, or the measurement fails.
    """
    threads = validate(Threads | None, threads, name="threads") or usable_cores()
    window = validate(Count | None, window, name="window")
    frames_per_step = validate(Count | None, frames_per_step, name="frames_per_step")
    num_classes = validate(Size, num_classes, name="classes")
    if backbone_name not in SAMPLINGS:
        raise unknown_name(backbone_name, SAMPLINGS, name="backbone")
    chosen = backbone(backbone_name, trained=backbone_name in TRAINED)
    dim, specs = sum(chosen.streams.values()), []
    for model in models:
        specs.append(_spec(model, dim, preset, num_classes, options or {}, frames_per_step or WINDOW))
    samplings = {sampling for _, sampling in specs if sampling}
    if frames_per_step and not samplings:
        raise TalError(
            f"frames_per_step={frames_per_step}, but no model is trained",
            remedy="Leave it out (--frames-per-step): models by name have a rate of their own.",
        )
    if len(samplings) > 1:
        raise TalError(
            "the checkpoints have features of different strides", remedy="Measure them one by one."
        )
    sampling = samplings.pop() if samplings else SAMPLINGS[backbone_name]
    reader = Reader(video, sampling.rate, chosen.size)  # raises errors in this process
    rows = isolated(
        _measure,
        f"{reader.shown} with {backbone_name}",
        threads,
        video=str(video),
        backbone_name=backbone_name,
        sampling=asdict(sampling),
        specs=[spec for spec, _ in specs],
        window=window,
    )
    return [EndToEnd(**row) for row in rows]


def _spec(model, dim, preset, num_classes, options, per_step=WINDOW):
    """(what the measuring process builds, the sampling that a checkpoint asks for or None).

    per_step: described pictures in a step.
    """
    if Path(model).suffix == ".pt" or Path(model).name == WEIGHTS or is_model_folder(model):
        trained = load_model(model)
        warn_if_not_stated(trained.statistics_stated, model)
        if trained.stream or trained.feature_spec.dim != dim:
            raise TalError(
                f"takes {trained.feature_spec.dim} columns, the backbone gives {dim}",
                where=model,
                remedy="Name the backbone that it was trained on, or a model trained on all streams.",
            )
        return {"checkpoint": str(model)}, sampling_of(trained.feature_spec, per_step)
    spec = {"name": str(model), "preset": preset, "input_dim": dim, "num_classes": num_classes}
    build(spec["name"], **{name: spec[name] for name in ("preset", "input_dim", "num_classes")}, **options)
    return spec | {"overrides": options}, None


def _model(spec):
    """The model, its classes and the preparation of its features."""
    if "checkpoint" in spec:
        chosen = Ready.of(load_model(spec["checkpoint"]))
        return chosen.model, chosen.classes, chosen.prepared
    torch.manual_seed(0)
    model = build_from(spec).eval()
    classes = tuple(map(str, range(spec["num_classes"])))
    model.class_names = classes  # no cost depends on class names, so the text encoder is not called
    return model, classes, lambda features: features


def _measure(video, backbone_name, sampling, specs, window, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    sampling = Sampling(**sampling)
    chosen = backbone(backbone_name, trained=backbone_name in TRAINED)
    new_reader = lambda: Reader(video, sampling.rate, chosen.size)
    next(feature_steps(new_reader(), chosen, sampling, ahead=False))  # what libraries allocate once
    with tempfile.TemporaryFile() as store:
        reader = new_reader()

        def extract(ahead=True, timed=untimed, reader=None, keep=lambda step: None):
            for step in feature_steps(reader or new_reader(), chosen, sampling, ahead=ahead, timed=timed):
                keep(np.ascontiguousarray(step, np.float32).tobytes())

        extraction_memory = peak_memory(lambda: extract(reader=reader, keep=store.write), "cpu")
        dim = sum(chosen.streams.values())
        steps, video_s = store.tell() // (4 * dim), _seconds(reader)
        about = (store, dim, video_s, sampling, window)
        peaks = [peak_memory(_Localization(spec, *about).run, "cpu") for spec in specs]
        keep_freed(max(extraction_memory, *peaks))
        with Energy("cpu") as energy:
            began = time.perf_counter()
            extract()
            wall = time.perf_counter() - began
        alone = Parts()
        extract(ahead=False, timed=alone.timed)
        network = chosen.network
        example = network and torch.zeros(1, 3, network.pixels, network.pixels)
        macs, uncounted = count_call(network.module, network.call, example) if network else (None, [])
        width, height = _picture_size(video)
        common = dict(
            video_s=video_s,
            width=width,
            height=height,
            native_fps=reader.native_fps,
            file_bytes=Path(video).stat().st_size,
            backbone=backbone_name,
            random_weights=backbone_name not in TRAINED,
            described_per_s=sampling.rate,
            steps=steps,
            stride_s=sampling.stride_s,
            input_dim=dim,
            threads=threads,
            decoding_s=alone.seconds["decoding"],
            features_s=alone.seconds["features"],
            extraction_wall_s=wall,
            extraction_memory_bytes=extraction_memory,
            feature_macs=macs and macs * round(video_s * sampling.rate),
            energy_j=energy.joules,
        )
        return [
            common | _localized(spec, _Localization(spec, *about), peak, common, uncounted)
            for spec, peak in zip(specs, peaks, strict=True)
        ]


def _seconds(reader):
    """The length of a video that was read: the file's own, unless it ends earlier.

    The last picture is shown up to a whole period of the sampling, so `reader.seconds` may be longer.
    """
    return min(reader.duration or reader.seconds, reader.seconds)


class _Localization:
    """A model that has seen a few steps, and its run over the stored features."""

    def __init__(self, spec, store, dim, video_s, sampling, window):
        self.model, self.classes, self.prepared = _model(spec)
        self.windows = windows_for(self.model, window) if window else windows_for(self.model)
        self.store, self.dim, self.video_s, self.sampling = store, dim, video_s, sampling
        self.run(most=64)  # what libraries allocate once

    def run(self, timed=untimed, most=None):
        """Localize in the video, or in its first `most` steps. Returns the windows' numbers of steps."""
        self.store.seek(0)
        streamed = Streamed(self.model, self.classes, self.windows, timed=timed)
        for step in iter(partial(self.store.read, 4 * self.dim), b""):
            streamed.push(self.prepared(np.frombuffer(step, np.float32).copy()))
            if most and streamed.steps == most:
                break
        streamed.finish("video", self.video_s, self.sampling.stride_s, self.sampling.window_s)
        return streamed.sizes


def _localized(spec, localization, peak, common, uncounted):
    """What localization adds to a row."""
    parts, dim = Parts(), common["input_dim"]
    sizes = localization.run(parts.timed)
    model, windows = localization.model, localization.windows
    counted = {size: count_macs(_model(spec)[0], dim, size) for size in set(sizes)}
    network_macs = sum(counted[size][0] for size in sizes)
    unknown = {name for _, names in counted.values() for name in names} | set(uncounted)
    network_s, decode_s = parts.seconds["network"], parts.seconds["decode and NMS"]
    total = common["extraction_wall_s"] + network_s + decode_s
    return dict(
        model=model.spec["name"],
        preset=model.spec["preset"],
        num_classes=len(localization.classes),
        window=windows.window,
        overlap=windows.overlap,
        same_as_whole=windows.joined,
        why_not=windows.why,
        network_s=network_s,
        decode_nms_s=decode_s,
        total_s=total,
        real_time_factor=real_time_factor(total, common["video_s"]),
        localization_memory_bytes=peak,
        peak_memory_bytes=common["extraction_memory_bytes"] + peak,
        network_macs=network_macs,
        uncounted_ops=" ".join(sorted(unknown)),
    )


def live(
    video: str | Path,
    backbone_name: str,
    model: str,
    *,
    preset: str = "compact",
    num_classes: int = 20,
    seconds: float = 60.0,
    threads: int | None = None,
) -> dict:
    """The cost of the live demo on the first `seconds` of a video.

    The video plays through `Stream` at its own pace, with one viewer, as on the demo's page. So it takes
    as long as the video. The real-time factor is the seconds of decoding, features and localization per
    second of video. Drawing is not part of it: it happens only for viewers.

    Returns:
        `backbone, height, model, video_s, decoding_s, features_s, localization_s, drawing_s,
            real_time_factor, dropped` (frames that the model missed), `threads`.

    Raises:
        TalError: as `end_to_end`; or a step or a picture failed, so the work is not complete.
    """
    threads = validate(Threads | None, threads, name="threads") or usable_cores()
    if backbone_name not in SAMPLINGS:
        raise unknown_name(backbone_name, SAMPLINGS, name="backbone")
    chosen = backbone(backbone_name, trained=backbone_name in TRAINED)
    spec, _ = _spec(model, sum(chosen.streams.values()), preset, num_classes, {})
    job = dict(video=str(video), backbone_name=backbone_name, spec=spec, seconds=seconds)
    return isolated(_measure_live, f"{Path(video).name} live with {backbone_name}", threads, **job)


def live_detector(spec: dict, backbone_name: str) -> LiveDetector:
    """The live demo's detector. spec: what `tal_lib.models.build_from` takes, or `{"checkpoint": FILE}`."""
    chosen, sampling = backbone(backbone_name, trained=backbone_name in TRAINED), SAMPLINGS[backbone_name]
    model, classes, prepared = _model(spec)
    features = FeatureSpec(
        stride_s=sampling.stride_s, window_s=sampling.window_s, streams=dict(chosen.streams)
    )
    return LiveDetector(
        model,
        classes,
        features,
        extractor=chosen,
        window=sampling.window,
        prepared=prepared,
    )


def _measure_live(video, backbone_name, spec, seconds, threads):
    torch.set_num_threads(threads)
    keep_freed()  # as `tal serve`
    stream = Stream(video, live_detector(spec, backbone_name), loop=False)
    viewer = threading.Thread(target=lambda: deque(stream.pictures(), maxlen=0), daemon=True)
    viewer.start()
    stream.play(seconds)
    viewer.join(2)
    if stream.failures:
        raise TalError(
            f"{stream.failures} steps or pictures of the live demo failed",
            where=Path(video).name,
            remedy="`tal serve` shows them: `failures` in its analytics.",
        )
    video_s = (stream.frames + stream.dropped) / stream.source.fps
    return {
        "backbone": backbone_name,
        "height": _picture_size(video)[1],
        "model": stream.detector.model.spec["name"],
        "video_s": video_s,
        **{f"{part}_s": stream.parts.total([part]) for part in LIVE_PARTS},
        "real_time_factor": real_time_factor(stream.parts.total(WORK), video_s),
        "dropped": stream.dropped,
        "threads": threads,
    }


def _picture_size(video):
    """(width, height) of the pictures in the file."""
    picture = next(iter(Reader(video, 1.0)))
    return picture.shape[1], picture.shape[0]


def cost_table(rows: list[EndToEnd]):
    """One row per measurement, with the costs per minute of video and the shares of the parts."""
    import pandas as pd

    return pd.DataFrame(
        [
            asdict(row)
            | {f"{part.replace(' ', '_')}_share": share for part, share in row.shares.items()}
            | {
                "seconds_per_minute": 60 * row.real_time_factor,
                "feature_macs_per_minute": row.feature_macs and 60 * row.feature_macs / row.video_s,
                "network_macs_per_minute": 60 * row.network_macs / row.video_s,
            }
            for row in rows
        ]
    )
