"""`tal versions`."""

from tal_lib.cli.options import add_only, only, typed
from tal_lib.validation import Count, Positive, Seed


def add_commands(commands) -> None:
    """Add the subcommand to `tal`."""
    versions = commands.add_parser(
        "versions", help="list or declare the versions of the code that computes results"
    )
    versions.set_defaults(run=_list)
    actions = versions.add_subparsers(metavar="ACTION")
    raised = actions.add_parser(
        "raise", help="declare that changed code computes other numbers; its cells become stale"
    )
    raised.add_argument(
        "areas", nargs="+", metavar="AREA", help="code area, or a folder for all changed areas in it"
    )
    raised.add_argument("--why", required=True, metavar="TEXT", help="reason: what changed")
    raised.set_defaults(run=_raise)
    stamp = actions.add_parser(
        "stamp",
        help="declare that changed code computes the same numbers, after rerunning a sample of its cells",
    )
    stamp.add_argument(
        "areas",
        nargs="*",
        metavar="AREA",
        help="code area, or a folder for all changed areas in it (default: all)",
    )
    stamp.add_argument(
        "--sample", type=typed(Count), default=3, help="least number of cells to rerun (default: 3)"
    )
    stamp.add_argument(
        "--seed", type=typed(Seed), default=None, help="seed of the sample (default: a new one each time)"
    )
    stamp.add_argument(
        "--longest",
        type=typed(Positive),
        default=300,
        metavar="SECONDS",
        help="sample only cells that take at most this time (default: 300)",
    )
    add_only(stamp, "sample only cells with this parameter value")
    stamp.add_argument("--results", default="results", help="folder of the ledgers (default: results)")
    stamp.set_defaults(run=_stamp)
    move = actions.add_parser("move", help="declare that the file of a code area was renamed or moved")
    move.add_argument("old", metavar="OLD", help="declared name of the area")
    move.add_argument("new", metavar="NEW", help="new name of the area")
    move.set_defaults(run=_move)


def _list(arguments):
    from tal_lib.sweeps import declare

    code = declare.fresh_code()
    states = declare.undeclared(code)
    for area, state in sorted(states.items()):
        version = code.versions.areas[area].version if area in code.versions.areas else "none"
        print(f"{state:8} {area} (declared version {version})")
    print(f"{len(code.versions.areas)} areas declared, {len(states)} not as declared")
    if states:
        print("Same numbers: `tal versions stamp`. Other numbers: `tal versions raise AREA --why TEXT`.")
    return 1 if states else 0


def _raise(arguments):
    from tal_lib.sweeps import declare

    code = declare.fresh_code()
    areas = declare.chosen_areas(arguments.areas, code)
    versions = declare.raise_versions(areas, arguments.why, code)
    for area in areas:
        print(f"{area} is version {versions.areas[area].version}")


def _stamp(arguments):
    from tal_lib.sweeps import declare

    code = declare.fresh_code()
    areas = declare.chosen_areas(arguments.areas, code)
    if not areas:  # an empty entry would declare nothing
        print("no area has changed code")
        return
    declare.stamp_versions(
        areas,
        code,
        arguments.results,
        sample=arguments.sample,
        seed=arguments.seed,
        longest=arguments.longest,
        only=only(arguments),
        tell=lambda verdict: print(verdict, flush=True),
    )
    print(f"{len(areas)} areas keep their version")


def _move(arguments):
    from tal_lib.sweeps import declare

    declare.move_area(arguments.old, arguments.new, declare.fresh_code())
    print(f"{arguments.new} is known as {arguments.old}")
