"""`tal cost`."""

import sys

from tal_lib.cli.options import add_options, pairs, typed
from tal_lib.errors import TalError
from tal_lib.validation import Count, Size, Threads


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    cost = commands.add_parser(
        "cost",
        help="parameters, MACs, memory and latency of a model; or of a video, from the file to detections",
        description="The cost of a model by recording length (`tal cost MODEL --length T --dim D`), or of a "
        "video from the file to its detections (`tal cost --video FILE --backbone NAME --model MODEL`): "
        "decoding, features, network, decode and NMS.",
    )
    cost.lists("models", "presets")
    cost.add_argument("model", nargs="?", help="a model; `tal models NAME` lists its options")
    cost.add_argument("--video", metavar="FILE", help="measure the whole way of this video")
    cost.add_argument(
        "--backbone",
        default=None,
        help="with --video: hog-hof (default), efficientnet-lite0, or by architecture alone resnet50, "
        "clip-vit-b32, inception_resnet_v2",
    )
    cost.add_argument(
        "--model",
        dest="models",
        nargs="+",
        metavar="MODEL",
        help="with --video: names of models (random weights) or checkpoints (model.pt)",
    )
    cost.add_argument(
        "--window",
        type=typed(Count),
        default=None,
        metavar="T",
        help="with --video: steps that a model sees at once (default: 2,304)",
    )
    cost.add_argument(
        "--length",
        type=typed(Count),
        nargs="+",
        default=None,
        metavar="T",
        help="steps; several for a table",
    )
    cost.add_argument("--dim", type=typed(Size), default=None, metavar="D", help="feature columns")
    cost.add_argument("--classes", type=typed(Size), default=20, metavar="K")
    cost.add_argument("--preset", default="compact", help="a preset of the model (default: compact)")
    cost.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    cost.add_argument(
        "--precision",
        default="float32",
        help="float32, bfloat16, compiled, tf32 (CUDA), or auto (bfloat16 where the device has instructions "
        "for it)",
    )
    cost.add_argument("--threads", type=typed(Threads), default=None)
    add_options(cost, "an option of the model")
    cost.set_defaults(run=_cost)


def _cost(arguments):
    if arguments.video is None:
        _refuse(arguments, ("backbone", "models", "window"), "needs --video")
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
        _refuse(arguments, ("length", "dim"), "does not go with --video: the video has them")
        if arguments.device != "cpu" or arguments.precision != "float32":
            raise TalError(
                f"--device {arguments.device} --precision {arguments.precision}",
                where="tal cost --video",
                remedy="A video is measured on cpu in float32: leave both out.",
            )
        _cost_of_video(arguments)


def _refuse(arguments, names, why):
    for name in names:
        if getattr(arguments, name) is not None:
            raise TalError(
                f"--{name.removesuffix('s')} {why}", where="tal cost", remedy="See `tal cost --help`."
            )


def _options(arguments, model):
    """The options of a model from `--set`."""
    from tal_lib.training.settings import route

    settings = route(model, arguments.preset, pairs(arguments.set), where="--set")
    if settings.recipe:
        raise TalError(
            f"{next(iter(settings.recipe))} is an option of training",
            where="--set",
            remedy="Name options of the model.",
        )
    return settings.options


def _cost_of_video(arguments):
    import pandas as pd

    from tal_lib.video.end_to_end import PARTS, end_to_end

    models = [*([arguments.model] if arguments.model else []), *(arguments.models or [])]
    if not models:
        raise TalError("no model", where="tal cost --video", remedy="Give --model MODEL.")
    if arguments.set and len(models) > 1:
        raise TalError("--set is for one model", where="tal cost --video", remedy="Give one --model.")
    rows = end_to_end(
        arguments.video,
        arguments.backbone or "hog-hof",
        models,
        preset=arguments.preset,
        num_classes=arguments.classes,
        window=arguments.window,
        threads=arguments.threads,
        options=_options(arguments, models[0]) if arguments.set else None,
    )
    first = rows[0]
    rate = f"{first.native_fps:g}" if first.native_fps else "unknown"
    print(
        f"{arguments.video}: {first.video_s:.1f} s, {first.width} x {first.height}, {rate} frames/s; "
        f"{first.steps:,} steps of {first.backbone}{' (random weights)' if first.random_weights else ''}, "
        f"{first.threads} threads"
    )
    minutes = first.video_s / 60
    macs = lambda value: "–" if value is None else round(value / minutes / 1e9, 3)
    table = pd.DataFrame(
        [
            {
                "model": row.model,
                **{f"{part} s/min": round(seconds / minutes, 3) for part, seconds in row.parts.items()},
                "total s/min": round(row.total_s / minutes, 3),
                "real-time factor": round(row.real_time_factor, 4),
                **{f"{part} %": round(100 * row.shares[part], 1) for part in PARTS},
                "feature GMACs/min": macs(row.feature_macs),
                "network GMACs/min": macs(row.network_macs),
                "peak MB": round(row.peak_memory_bytes / 1e6, 1),
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
        "\ntotal: decoding and features overlapped, then network, decode and NMS; the parts are timed alone"
    )


def _cost_of_model(arguments):
    import pandas as pd

    from tal_lib.cost import profile

    options = _options(arguments, arguments.model)
    rows = [
        profile(
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
        for length in arguments.length
    ]
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
        print("energy: this machine exposes no counter of it (RAPL, NVML)", file=sys.stderr)
