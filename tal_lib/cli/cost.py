"""`tal cost`."""


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    cost = commands.add_parser("cost", help="parameters, MACs, memory and latency of a model")
    cost.add_argument("model")
    cost.add_argument(
        "--length", type=int, nargs="+", required=True, metavar="T", help="steps; several for a table"
    )
    cost.add_argument("--dim", type=int, required=True, metavar="D", help="feature columns")
    cost.add_argument("--classes", type=int, default=20, metavar="K")
    cost.add_argument("--preset", default="compact")
    cost.add_argument("--device", default="cpu")
    cost.add_argument("--precision", default="float32", help="float32, bfloat16 or compiled")
    cost.add_argument("--threads", type=int, default=None)
    cost.set_defaults(run=_cost)


def _cost(arguments):
    import pandas as pd

    from tal_lib.cost import profile

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
        )
        for length in arguments.length
    ]
    print(
        f"{rows[0].model} ({rows[0].preset}), {rows[0].params:,} parameters; {rows[0].device_name}, {rows[0].threads} threads, "
        f"{rows[0].precision}"
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
                    "uncounted": row.uncounted_ops or "none",
                }
                for row in rows
            ]
        ).to_string(index=False)
    )
