"""`tal data`: list, fetch and check benchmarks, write data-limited subsets, import and export."""

from tal_lib.cli import formats, video
from tal_lib.cli.options import add_overwrite, add_root, print_table, root_of, typed
from tal_lib.errors import TalError
from tal_lib.validation import Fraction, Seed


def add_commands(commands) -> None:
    """Add the subcommands to `tal`."""
    data = commands.add_parser(
        "data", help="list, download, check, import and export data sets, and write subset samples"
    )
    actions = data.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list the benchmarks and show which are installed")
    listing.set_defaults(run=_data_list)
    fetch = actions.add_parser("fetch", help="download a benchmark, or install it from a downloaded file")
    fetch.add_argument("name", help="name of the benchmark")
    fetch.add_argument("--from", dest="source", metavar="FILE", help="archive that you downloaded yourself")
    add_overwrite(fetch)
    fetch.set_defaults(run=_data_fetch)
    check = actions.add_parser("check", help="list missing and broken recordings of a benchmark")
    check.add_argument("name", help="name of a benchmark, or a folder")
    check.add_argument(
        "--all", action="store_true", help="list every problem (default: the first ten of each kind)"
    )
    check.set_defaults(run=_data_check)
    subset = actions.add_parser(
        "subset", help="write an annotation file with a subset sample of the training recordings"
    )
    subset.add_argument("name", help="name of a benchmark, or a folder")
    subset.add_argument(
        "--fraction",
        type=typed(Fraction),
        required=True,
        help="label fraction: part of the training recordings, in (0, 1]",
    )
    subset.add_argument("--seed", type=typed(Seed), default=0, help="seed of the sample (default: 0)")
    subset.add_argument("--out", default=".", help="output folder (default: the current folder)")
    add_overwrite(subset)
    subset.set_defaults(run=_data_subset)
    for action in (fetch, check, subset):
        action.lists("benchmarks")
    for action in actions.choices.values():
        add_root(action)
    video.add_data_actions(actions)
    formats.add_data_actions(actions)


def _data_list(arguments):
    from tal_lib.data import list_benchmarks

    numbers = ["recordings", "classes", "segments"]
    columns = ["benchmark", "here", *numbers, "about", "licence", "origin"]
    print_table(list_benchmarks(root_of(arguments))[columns], numbers)


def _data_fetch(arguments):
    from pathlib import Path

    from tal_lib.data import rendered
    from tal_lib.data.registry import BENCHMARKS
    from tal_lib.files import data_root

    entry = BENCHMARKS.get(arguments.name)
    if arguments.name in rendered.BACKBONES:
        from tal_lib.provenance import usable_cores
        from tal_lib.video.rendered_benchmark import make

        ignored = {"--from": arguments.source, "--root": arguments.root}
        if given := [option for option, value in ignored.items() if value]:
            raise TalError(
                f"{given[0]}: {arguments.name} is generated on this machine and kept in the cache folder",
                remedy=f"Leave {given[0]} out; $TAL_CACHE names another cache folder.",
            )
        backbone = rendered.BACKBONES[arguments.name]
        print(make(rendered.folder(), backbones=(backbone,), workers=usable_cores())[0])
        return
    if entry is None or entry.fetch is None:
        known = [name for name, entry in BENCHMARKS.items() if entry.fetch or name in rendered.BACKBONES]
        raise TalError(
            f"{arguments.name} cannot be fetched",
            remedy=f"Choose from {', '.join(known)}; `tal data list` says where others come from, "
            "and docs/adding-a-dataset.md where their files go.",
        )
    print(entry.fetch(Path(arguments.root) if arguments.root else data_root(), arguments.source))
    print(f"licence: {entry.licence}")


def _data_check(arguments):
    from tal_lib.data import check_benchmark, load_benchmark
    from tal_lib.data.checks import FAULTS, summary

    benchmark = load_benchmark(arguments.name, root_of(arguments))
    print(benchmark)
    problems = check_benchmark(arguments.name, arguments.root)
    for line in summary(problems, None if arguments.all else 10):
        print(line)
    faults = {kind: int((problems.kind == kind).sum()) for kind in FAULTS}
    print(
        f"{len(benchmark.recordings()):,} recordings, {faults['missing']:,} without features, "
        f"{faults['broken']:,} broken, {len(problems) - sum(faults.values()):,} remarks"
    )
    return 1 if any(faults.values()) else 0


def _data_subset(arguments):
    from tal_lib.data import load_benchmark, write_limited_annotations
    from tal_lib.data.registry import subset_names

    benchmark = load_benchmark(arguments.name, root_of(arguments))
    names = subset_names(benchmark.name)
    print(write_limited_annotations(benchmark, arguments.fraction, arguments.seed, arguments.out, names))
