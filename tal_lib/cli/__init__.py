"""The command `tal`.

Exit codes: 0 done, 1 some cells failed (or problems were found), 2 bad arguments or input.
"""

import os
import sys

from tal_lib import __version__
from tal_lib.cli import (
    cost,
    data,
    evaluate,
    export,
    models,
    released,
    report,
    share,
    sweep,
    train,
    versions,
    video,
)
from tal_lib.cli.options import Command, use_plugins
from tal_lib.disk import FULL_CODES, full_disk, link_loop_error, no_empty_folders
from tal_lib.errors import TalError
from tal_lib.process.memory import keep_freed
from tal_lib.writing import overwriting


def main(argv: list[str] | None = None) -> int:
    """Run the command with `argv` (None: the arguments of the process) and return the exit code."""
    if argv is None:  # this process runs only the command
        keep_freed()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names may contain any bytes
    try:
        arguments = _parser().parse_args(argv)
        use_plugins(arguments)
        with no_empty_folders(), overwriting(getattr(arguments, "overwrite", False)):
            return arguments.run(arguments) or 0
    except TalError as error:
        return _refused(error)
    except BrokenPipeError:  # whoever reads the output (`| head`) wants no more of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, RuntimeError) as error:
        if looped := link_loop_error(error):
            return _refused(looped)
        if not isinstance(error, OSError):
            raise
        if error.errno in FULL_CODES:
            return _refused(full_disk(error.filename or "."))
        if error.filename is None:
            raise
        problem = error.strerror or type(error).__name__
        return _refused(TalError(problem, where=error.filename, remedy="Check the path and its permissions."))
    except KeyboardInterrupt:
        print("tal: interrupted. Finished work is kept. Run the same command to continue.", file=sys.stderr)
        return 130


def _refused(error):
    print("tal:", " ".join(str(error).splitlines()), file=sys.stderr)
    return 2


def _parser():
    parser = Command(
        prog="tal", description="Train, evaluate and measure models of temporal action localization."
    )
    parser.add_argument("--version", action="version", version=f"tal {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (
        data,
        models,
        train,
        released,
        evaluate,
        sweep,
        versions,
        report,
        cost,
        export,
        share,
        video,
    ):
        group.add_commands(commands)
    return parser
