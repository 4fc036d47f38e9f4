"""`tal sweep` and `tal verify`."""

from collections import Counter

from tal_lib.cli.options import add_folders, add_only, only, typed
from tal_lib.validation import Count, Gigabytes, NotNegative, Positive, Seed, Threads


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    sweep = commands.add_parser("sweep", help="run the unfinished cells of a grid")
    sweep.lists("grids", "models", "presets", "benchmarks")
    sweep.add_argument("grid", metavar="GRID.yaml", help="grid file, or name of a grid in notebooks/sweeps")
    sweep.add_argument(
        "--jobs",
        type=typed(Count),
        default=None,
        help="number of cells to run in parallel (default: 1, or one per GPU)",
    )
    sweep.add_argument(
        "--gpus",
        metavar="0,1",
        help="GPUs to use, as numbered by nvidia-smi; each runs one cell at a time",
    )
    sweep.add_argument("--threads", type=typed(Threads), default=1, help="CPU threads per cell (default: 1)")
    sweep.add_argument(
        "--cluster",
        metavar="WHERE",
        help="where to run: a Dask scheduler (tls://HOST:PORT, tcp://HOST:PORT), local:N workers, or "
        "slurm:CONFIG.yaml",
    )
    sweep.add_argument(
        "--time-limit",
        type=typed(Positive),
        metavar="MINUTES",
        help="stop a cell after this time (default: the limit of the grid, or 12 hours)",
    )
    sweep.add_argument(
        "--memory-limit",
        type=typed(Gigabytes),
        metavar="GB",
        help="stop a cell that uses more memory (default: all available memory)",
    )
    add_only(sweep, "run only cells with this parameter value")
    sweep.add_argument("--dry-run", action="store_true", help="list the cells with their state, run nothing")
    sweep.add_argument(
        "--again",
        nargs="?",
        const="all",
        choices=("all", "stale"),
        help="run finished cells again: all of them (default), or only those that older code made (stale)",
    )
    sweep.set_defaults(run=_sweep)
    add_folders(sweep)

    again = commands.add_parser(
        "verify", help="rerun a random sample of finished cells and compare the numbers"
    )
    again.add_argument(
        "results", nargs="?", default="results", help="folder of the ledgers (default: results)"
    )
    again.add_argument("--sample", type=typed(Count), default=3, help="number of cells (default: 3)")
    again.add_argument(
        "--seed", type=typed(Seed), default=None, help="seed of the sample (default: a new one each time)"
    )
    again.add_argument(
        "--tolerance",
        type=typed(NotNegative),
        default=0.02,
        help="largest accepted difference of a mean (default: 0.02, which is 2 points of mAP)",
    )
    again.add_argument(
        "--longest",
        type=typed(Positive),
        default=300,
        metavar="SECONDS",
        help="sample only cells that took at most this time (default: 300)",
    )
    add_only(again, "sample only cells with this parameter value")
    again.set_defaults(run=_verify)


def _sweep(arguments):
    from tal_lib import sweeps
    from tal_lib.sweeps.gpus import gpu_environments

    chosen = only(arguments)
    if arguments.gpus is not None:
        gpu_environments(arguments.gpus, jobs=arguments.jobs, cluster=arguments.cluster)
    if arguments.dry_run:
        here = arguments.cluster is None
        cells = sweeps.plan_some(arguments.grid, chosen, here=here, results=arguments.results)
        states = sweeps.states_of(cells, sweeps.ledgers(arguments.results))
        for cell in cells:
            print(f"{cell.id}  {states[cell.id].name:5}  {cell.notebook.stem}  {cell.label()}")
        count = Counter(state.name for state in states.values())
        for line in sweeps.state_lines(state.changes for state in states.values()):
            print(line)
        best, less = sweeps.detections_missing(
            arguments.grid, cells, results=arguments.results, runs=arguments.runs
        )
        for line in sweeps.kept_lines(less.values(), best):
            print(line)
        print(f"{len(cells)} cells, {count['to do']} to do, {count['stale']} stale, {count['done']} done")
        return 0
    result = sweeps.run(
        arguments.grid,
        jobs=arguments.jobs,
        threads=arguments.threads,
        gpus=arguments.gpus,
        cluster=arguments.cluster,
        resume=arguments.again != "all",
        again_stale=arguments.again == "stale",
        results=arguments.results,
        runs=arguments.runs,
        only=chosen,
        time_limit=arguments.time_limit and 60 * arguments.time_limit,
        memory_limit=arguments.memory_limit and int(1e9 * arguments.memory_limit),
    )
    print(
        f"{len(result.cells)} cells: {result.done_before} were done, {result.done_now} done now, "
        f"{len(result.failed)} failed"
    )
    for line in sweeps.state_lines(result.stale.values()):
        print(line)
    for line in sweeps.kept_lines(result.less.values(), result.detections):
        print(line)
    print(f"ledger  {result.ledger}")
    for cell, reason in result.failed.items():
        print(f"failed  {cell}: {reason}")
        if (failed := result.runs / f"{cell}.failed").is_dir():  # not if a worker refused it
            print(f"        notebook with the traceback: {failed}")
    if result.failed and arguments.again != "all":
        print("Run the same command to try the failed cells again.")
    return 1 if result.failed else 0


def _verify(arguments):
    from tal_lib import sweeps

    held = []
    for verdict in sweeps.verify(
        arguments.results,
        arguments.sample,
        arguments.seed,
        arguments.tolerance,
        arguments.longest,
        only(arguments),
    ):
        held.append(verdict.holds)
        print(verdict, flush=True)
    print(f"{sum(held)} of {len(held)} cells have the same numbers")
    _, unknown = sweeps.verify_candidates(arguments.results, arguments.longest, only(arguments))
    if unknown:
        print(f"{unknown} cells could not be sampled: the training time of their weights is unknown")
    return 0 if all(held) else 1
