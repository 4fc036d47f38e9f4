"""`tal cost`."""

import sys

from tal_lib.cli.options import add_options, pairs, typed
from tal_lib.errors import TalError
from tal_lib.validation import Count, Size, Threads


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    cost = commands.add_parser("cost", help="parameters, MACs, memory and latency of a model")
    cost.lists("models", "presets")
    cost.add_argument("model", help="a model; `tal models NAME` lists its options")
    cost.add_argument(
        "--length",
        type=typed(Count),
        nargs="+",
        required=True,
        metavar="T",
        help="steps; several for a table",
    )
    cost.add_argument("--dim", type=typed(Size), required=True, metavar="D", help="feature columns")
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
    import pandas as pd

    from tal_lib.cost import profile
    from tal_lib.training.settings import route

    settings = route(arguments.model, arguments.preset, pairs(arguments.set), where="--set")
    if settings.recipe:
        raise TalError(
            f"{next(iter(settings.recipe))} is an option of training",
            where="--set",
            remedy="Name options of the model.",
        )
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
            **settings.options,
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
