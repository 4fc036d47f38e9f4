"""`tal cost`."""

import sys

from tal_lib.cli.options import add_options, pairs, typed
from tal_lib.errors import TalError
from tal_lib.validation import Count, Size, Threads

NAMES = {  # of the parts of a video's way
    "decoding": "video decoding",
    "features": "features",
    "network": "network",
    "decode and NMS": "box decoding and NMS",
}


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    cost = commands.add_parser(
        "cost",
        help="measure parameters, MACs, memory and latency of a model, or the cost of a whole video pipeline",
        description="Measure the cost of a model by recording length: `tal cost MODEL --length T --dim D`. "
        "Or measure the whole pipeline on a video: `tal cost --video FILE --backbone NAME --model MODEL`. "
        "The pipeline is video decoding, features, network, box decoding and NMS. The video is extracted "
        "three times: for the peak memory, for the time end to end, and for each part alone.",
    )
    cost.lists("models", "presets")
    cost.add_argument("model", nargs="?", help="name of the model; `tal models NAME` lists its options")
    cost.add_argument("--video", metavar="FILE", help="measure the whole pipeline on this video")
    cost.add_argument(
        "--backbone",
        default=None,
        help="with --video: hog-hof (default) or efficientnet-lite0; with random weights also resnet50, "
        "clip-vit-b32 or inception_resnet_v2",
    )
    cost.add_argument(
        "--model",
        dest="models",
        nargs="+",
        metavar="MODEL",
        help="with --video: trained models (model.pt, a model folder, or BENCHMARK/MODEL of results/models) "
        "or names of models (random weights). The models hapt/MODEL read motion sensors, not videos.",
    )
    cost.add_argument(
        "--window",
        type=typed(Count),
        default=None,
        metavar="T",
        help="with --video: number of feature steps per window (default: 2,304); more where a model needs it",
    )
    cost.add_argument(
        "--frames-per-step",
        type=typed(Count),
        default=None,
        metavar="N",
        help="with --video and a trained model: frames per feature step, as --window of `tal extract` "
        "(default: 16)",
    )
    cost.add_argument(
        "--length",
        type=typed(Count),
        nargs="+",
        default=None,
        metavar="T",
        help="recording length in feature steps; several give a table",
    )
    cost.add_argument("--dim", type=typed(Size), default=None, metavar="D", help="feature dimension")
    cost.add_argument(
        "--classes", type=typed(Size), default=20, metavar="K", help="number of classes (default: 20)"
    )
    cost.add_argument("--preset", default="compact", help="preset of the model (default: compact)")
    cost.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    cost.add_argument(
        "--precision",
        default="float32",
        help="float32 (default), bfloat16, compiled, tf32 (CUDA), or auto: bfloat16 if the "
        "device supports it",
    )
    cost.add_argument(
        "--threads",
        type=typed(Threads),
        default=None,
        help="CPU threads (default: all cores; the study's tables of models have 1)",
    )
    add_options(cost, "option of the model")
    cost.set_defaults(run=_cost)


def _cost(arguments):
    if arguments.video is None:
        _refuse(arguments, ("backbone", "models", "window", "frames_per_step"), "needs --video")
        for name in ("model", "length", "dim"):
            if getattr(arguments, name) is None:
                option = name.upper() if name == "model" else f"--{name}"
                raise TalError(
                    f"{option} is missing",
                    where="tal cost",
                    remedy="Give MODEL, --length and --dim, or --video FILE and --model.",
                )
        _cost_of_model(arguments)
    else:
        _refuse(
            arguments,
            ("length", "dim"),
            "cannot be used with --video, which gives its own length and dimension",
        )
        if arguments.device != "cpu" or arguments.precision != "float32":
            raise TalError(
                f"--device {arguments.device} --precision {arguments.precision}",
                where="tal cost --video",
                remedy="A video is measured on cpu in float32: leave out --device and --precision.",
            )
        _cost_of_video(arguments)


def _busy():
    """A note if this machine was busy in the last minute, so that times may be too long; otherwise empty."""
    from tal_lib.process.quiet import check_quiet

    try:
        check_quiet()
    except TalError as busy:
        return f"note: {busy.problem}. Stop other programs, wait a minute, and measure again."
    return ""


def _refuse(arguments, names, why):
    for name in names:
        if getattr(arguments, name) is not None:
            raise TalError(
                f"--{name.removesuffix('s').replace('_', '-')} {why}",
                where="tal cost",
                remedy="See `tal cost --help`.",
            )


def _options(arguments, model):
    """The options of a model from `--set`."""
    from tal_lib.training.settings import route

    settings = route(model, arguments.preset, pairs(arguments.set), where="--set")
    if settings.recipe:
        raise TalError(
            f"{next(iter(settings.recipe))} is an option of the training recipe, not of the model",
            where="--set",
            remedy=f"`tal models {model}` lists the options of the model.",
        )
    return settings.options


def _cost_of_video(arguments):
    import pandas as pd

    from tal_lib.reports.layout import model_place
    from tal_lib.video.end_to_end import PARTS, end_to_end

    models = [*([arguments.model] if arguments.model else []), *(arguments.models or [])]
    if not models:
        raise TalError("no model", where="tal cost --video", remedy="Give --model MODEL.")
    if arguments.set and len(models) > 1:
        raise TalError(
            "--set works with one model only", where="tal cost --video", remedy="Give one --model."
        )
    busy = _busy()
    if sys.stderr.isatty():
        print("measuring: the video is extracted three times …", file=sys.stderr)
    rows = end_to_end(
        arguments.video,
        arguments.backbone or "hog-hof",
        [str(model_place(model)) for model in models],
        preset=arguments.preset,
        num_classes=arguments.classes,
        window=arguments.window,
        frames_per_step=arguments.frames_per_step,
        threads=arguments.threads,
        options=_options(arguments, models[0]) if arguments.set else None,
    )
    first = rows[0]
    if problem := _ended_early(arguments.video, first.video_s):
        print(problem)
    rate = f"{first.native_fps:g}" if first.native_fps else "unknown"
    print(
        f"{arguments.video}: {first.video_s:.1f} s, {first.width} x {first.height}, {rate} frames/s; "
        f"{first.steps:,} steps of {first.backbone}{' (random weights)' if first.random_weights else ''}, "
        f"one every {first.stride_s:g} s, {first.described_per_s:g} described frames/s; "
        f"{first.threads} threads"
    )
    minutes = first.video_s / 60
    macs = lambda value: "–" if value is None else round(value / minutes / 1e9, 3)
    table = pd.DataFrame(
        [
            {
                "model": row.model,
                **{
                    f"{NAMES[part]} s/min": round(seconds / minutes, 3) for part, seconds in row.parts.items()
                },
                "total s/min": round(row.total_s / minutes, 3),
                "real-time factor": round(row.real_time_factor, 4),
                **{f"{NAMES[part]} %": round(100 * row.shares[part], 1) for part in PARTS},
                "feature GMACs/min": macs(row.feature_macs),
                "network GMACs/min": macs(row.network_macs),
                "peak MB": round(row.peak_memory_bytes / 1e6, 1),
                **({} if row.energy_j is None else {"extraction J/min": round(row.energy_j / minutes, 2)}),
                "window": f"{row.window}, overlap {row.overlap}",
                "as whole": "yes" if row.same_as_whole else f"no: {row.why_not}",
                "uncounted": row.uncounted_ops or "none",
            }
            for row in rows
        ]
    )
    for _, row in table.iterrows():
        print("\n" + row.to_string())
    print(
        "\ntotal: video decoding and features run in parallel, then network, box decoding and NMS.\n"
        "Each part is also timed alone."
    )
    if words := _about_windows(rows):
        print(words)
    if first.energy_j is None:
        _say_no_energy()
    if busy:
        print(busy, file=sys.stderr)


def _about_windows(rows):
    """A sentence on models that ran in several windows here, and see the whole recording by default."""
    merged = [row.model for row in rows if not row.same_as_whole and row.steps > row.window]
    if not merged:
        return ""
    return (
        "Measured in windows, as with `tal detect --windowed`. Without it, the network's memory grows with "
        f"the video: `tal detect` gives the whole recording to {', '.join(merged)}."
    )


def _ended_early(video, seconds):
    """A sentence if a good part of a video could not be read: its cost is that of the part before."""
    from tal_lib.video.frames import Reader

    duration = Reader(video, fps=1).duration
    if not duration or seconds >= 0.9 * duration - 1:
        return ""
    return (
        f"{video}: only {seconds:.1f} of {duration:.1f} s can be read, and only these were measured. Copy or "
        "download it again."
    )


def _cost_of_model(arguments):
    from tal_lib.cost import DoesNotFit, profile

    options, rows, too_long, busy = _options(arguments, arguments.model), [], [], _busy()
    for length in arguments.length:
        if too_long and length >= min(too_long):
            too_long.append(length)
            continue
        try:
            row = profile(
                arguments.model,
                arguments.dim,
                length,
                arguments.device,
                num_classes=arguments.classes,
                preset=arguments.preset,
                precision=arguments.precision,
                threads=arguments.threads,
                **options,
            )
        except DoesNotFit:  # what fits is shown first
            too_long.append(length)
        else:
            rows.append(row)
    if rows:
        _print_costs(rows)
        if busy:
            print(busy, file=sys.stderr)
    if too_long:
        raise DoesNotFit(
            f"{arguments.model} does not fit into memory at {', '.join(map(str, too_long))} steps",
            remedy="Try a shorter length, or a machine with more memory.",
        )


def _print_costs(rows):
    import pandas as pd

    print(
        f"{rows[0].model} ({rows[0].preset}), {rows[0].params:,} parameters; {rows[0].device_name}, "
        f"{rows[0].threads} threads, {rows[0].precision}"
    )
    print(
        pd.DataFrame(
            [
                {
                    "steps": row.length_steps,
                    "GMACs": round(row.macs / 1e9, 3),
                    "latency ms": round(1e3 * row.latency_s_median, 2),
                    "p90 ms": round(1e3 * row.latency_s_p90, 2),
                    "with NMS ms": round(1e3 * row.detect_s_median, 2),
                    "peak MB": round(row.peak_memory_bytes / 1e6, 1),
                    **({} if row.energy_j is None else {"J": round(row.energy_j, 3)}),
                    "uncounted": row.uncounted_ops or "none",
                }
                for row in rows
            ]
        ).to_string(index=False)
    )
    if all(row.energy_j is None for row in rows):
        _say_no_energy()


def _say_no_energy():
    print("energy: not measured, because this machine has no energy counter (RAPL, NVML)", file=sys.stderr)
