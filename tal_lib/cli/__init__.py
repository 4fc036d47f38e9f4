"""The command `tal`. Exit codes: 0 done, 1 some cells failed (or problems were found), 2 bad arguments or input."""

import argparse
import sys

from tal_lib import __version__
from tal_lib.cli import cost, data, evaluate, export, report, sweep, train, versions, video
from tal_lib.errors import TalError
from tal_lib.process.memory import keep_freed


def main(argv: list[str] | None = None) -> int:
    """Run the command with `argv` (of the process if None); the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if argv is None:  # the process is ours
        keep_freed()
    try:
        return arguments.run(arguments) or 0
    except TalError as error:
        print(f"tal: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tal: interrupted; finished work is kept, the same command goes on from there", file=sys.stderr)
        return 130


def _parser():
    parser = argparse.ArgumentParser(
        prog="tal", description="Efficient temporal action localization: the study's tool."
    )
    parser.add_argument("--version", action="version", version=f"tal {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (data, train, evaluate, sweep, versions, report, cost, export, video):
        group.add_commands(commands)
    return parser
