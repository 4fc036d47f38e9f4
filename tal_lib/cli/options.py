"""Options that several commands share."""

import argparse
from dataclasses import replace
from pathlib import Path
from textwrap import fill

from tal_lib.disk import no_folder, refuse_link_loop
from tal_lib.errors import TalError
from tal_lib.validation import validate

RUNS = "runs"  # the folder of run folders, in the working directory


class _Subcommands(argparse._SubParsersAction):
    """Subcommands whose own help begins with the line that the help of their group has for them."""

    def add_parser(self, name, *, help, **options):
        options.setdefault("description", f"{help[0].upper()}{help[1:]}.")
        return super().add_parser(name, help=help, **options)


class Command(argparse.ArgumentParser):
    """A parser that reports an error in one line. It has the option `--plugin`, as every command does.

    `lists` names what its help lists at the end: the models, presets, benchmarks and trained models that it
    takes.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register("action", "parsers", _Subcommands)
        self._listed: tuple[str, ...] = ()
        self.add_argument(
            "--plugin",
            action="append",
            default=argparse.SUPPRESS,
            metavar="FILE.py",
            help="Python file that adds models or benchmarks; may be repeated",
        )

    def lists(self, *kinds: str) -> None:
        """End the help with names: `models`, `presets`, `benchmarks`, `trained models`, `grids`."""
        self._listed = kinds

    def format_help(self):
        """The help, with today's names. They are looked up only here, since this loads all models."""
        if self._listed:
            self.formatter_class = argparse.RawDescriptionHelpFormatter
            self.description = fill(self.description, 78) if self.description else None
            names = known_names()
            self.epilog = "\n".join(
                fill(f"{kind}: {', '.join(names[kind])}", 78, subsequent_indent="  ", break_on_hyphens=False)
                for kind in self._listed
                if names[kind]
            )
        return super().format_help()

    def _get_value(self, action, arg_string):
        """The value of an argument. An empty one, and a path that no file can have, are refused here for all
        commands."""
        if isinstance(action, argparse._SubParsersAction):  # the subcommand looks at its arguments
            return super()._get_value(action, arg_string)
        if not arg_string.strip():
            raise argparse.ArgumentError(action, "the value is empty")
        refuse_link_loop(arg_string)
        return super()._get_value(action, arg_string)

    def error(self, message):
        """Print the error in one line and exit with code 2."""
        self.exit(2, f"tal: {' '.join(message.split())}. See `{self.prog} --help`.\n")


def known_names() -> dict[str, list[str]]:
    """`models`, `presets`, `benchmarks`, `trained models`, `grids` → their names, those of plug-ins too."""
    from tal_lib.data.registry import BENCHMARKS
    from tal_lib.models.parts import registry
    from tal_lib.reports.layout import trained_models
    from tal_lib.sweeps.grid_file import grids

    models = registry.every_name()
    presets = dict.fromkeys(preset for name in models for preset in registry.presets(name))
    names = {"models": models, "presets": sorted(presets), "benchmarks": list(BENCHMARKS)}
    return names | {"trained models": trained_models(), "grids": grids()}


def typed(kind):
    """Make a type of `tal_lib.validation` usable as the `type=` of an argument."""

    def read(text):
        try:
            return validate(kind, text)
        except TalError as error:
            raise argparse.ArgumentTypeError(error.problem) from None

    return read


def use_plugins(arguments) -> None:
    """Load the files that `--plugin` names."""
    from tal_lib import plugins

    for path in getattr(arguments, "plugin", []):
        plugins.use(Path(path))


def add_options(parser, help: str) -> None:
    """Add the option `--set KEY=VALUE`."""
    help = f"{help}; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help)


def add_only(parser, help: str, metavar: str = "KEY=VALUE") -> None:
    """Add the option `--only KEY=VALUE`."""
    help = f"{help}; may be repeated"
    parser.add_argument("--only", action="append", default=[], metavar=metavar, help=help)


def add_device(parser) -> None:
    """Add the option `--device`, whose default is a GPU if there is one."""
    parser.add_argument(
        "--device",
        default=None,
        help="cpu, cuda or cuda:N (default: $TAL_DEVICE, else a GPU if available)",
    )


def add_root(parser) -> None:
    """Add the option `--root`."""
    parser.add_argument(
        "--root",
        help="data folder (default: $TAL_DATA, else data/ in the checkout; if the package is installed: "
        "~/.local/share/efficient-tal)",
    )


def root_of(arguments) -> str | None:
    """The data folder that `--root` names, if a command is to read it.

    Raises:
        TalError: it is no folder.
    """
    if arguments.root is not None and not Path(arguments.root).is_dir():
        raise no_folder(arguments.root)
    return arguments.root


def add_folders(parser) -> None:
    """Add the folders of a sweep and of its report."""
    parser.add_argument(
        "--results",
        default="results",
        help="folder of the ledgers (also of trials that give tuned settings) and tables (default: results)",
    )
    parser.add_argument("--runs", default=RUNS, help=f"folder of the run folders (default: {RUNS})")


def add_overwrite(parser) -> None:
    """Add the option that lets a command replace files that this program did not write."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also replace files that tal did not write, and files that were edited since",
    )


def add_missing(parser) -> None:
    """Add the option that says what happens to recordings without features."""
    parser.add_argument(
        "--missing",
        choices=("error", "skip"),
        default="error",
        help="what to do with recordings without features: stop with an error (default), or skip them and "
        "list them in OUT",
    )


def add_loading(parser) -> None:
    """Add the options that say how features reach the model. The types know what is accepted."""
    parser.add_argument(
        "--in-memory",
        metavar="auto|true|false",
        help="keep all features in memory; auto: only if they fit (default: $TAL_IN_MEMORY, else auto)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        help="threads that load the next batches; auto: 0 for features in memory, else up to 4 "
        "(default: $TAL_WORKERS, else auto)",
    )


def loading_of(arguments):
    """The `Loading` that `--in-memory` and `--workers` ask for."""
    from tal_lib.data.loading import InMemory, Loading, Workers

    given = {
        name: validate(kind, value, where=option)
        for name, option, kind, value in (
            ("in_memory", "--in-memory", InMemory, arguments.in_memory),
            ("workers", "--workers", Workers, arguments.workers),
        )
        if value is not None
    }
    return replace(Loading.default(), **given)


def pairs(items, option: str = "--set"):
    """KEY=VALUE texts → dict; values as YAML reads them."""
    from tal_lib.reading import parse_yaml

    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise TalError(f"{item!r} is not KEY=VALUE", remedy="Write a name, =, and its value.")
        if not value.strip():
            raise TalError(
                f"the value of {key} is empty",
                where=option,
                remedy=f"Write {key}=VALUE; null means none.",
            )
        pairs[key] = parse_yaml(value, where=key)
    return pairs


ONLY = "Write a parameter's name, =, and its value; each parameter once."
EMPTY = ("''", '""')  # how an empty text is written


def only(arguments) -> dict[str, str]:
    """The `--only KEY=VALUE` of a command."""
    pairs = {}
    for item in arguments.only:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise TalError("--only takes KEY=VALUE", remedy=ONLY)
        if key in pairs:
            raise TalError("two values of one parameter", where="--only", remedy=ONLY)
        if not value.strip():
            raise TalError(
                f"the value of {key} is empty",
                where="--only",
                remedy=f"{ONLY} \"{key}=''\" means an empty text.",
            )
        pairs[key] = "" if value in EMPTY else value
    return pairs


def print_table(table, numbers=()) -> None:
    """Print a table whose text starts at the left of its column; the columns `numbers` end at the right."""
    table = table.astype(str)
    widths = {name: max(len(name), *table[name].str.len()) for name in table}
    for row in (list(table), *table.itertuples(index=False)):
        cells = (
            text.rjust(widths[name]) if name in numbers else text.ljust(widths[name])
            for name, text in zip(table, row)
        )
        print("  ".join(cells).rstrip())


def print_scores(scores) -> None:
    """Print mAP by tIoU, and its mean."""
    print("tIoU    " + "  ".join(f"{tiou:5.2f}" for tiou in scores.index))
    print("mAP %   " + "  ".join(f"{100 * value:5.2f}" for value in scores))
    print(f"avg mAP {100 * scores.mean():.2f} %")
