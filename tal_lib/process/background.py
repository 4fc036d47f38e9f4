"""Write a part of the results in a fork, while this process goes on."""

import os
import select
import traceback
from collections.abc import Callable

from tal_lib.errors import TalError


def in_background(function: Callable[[], object]) -> Callable[[], None]:
    """Run a function in a fork, for what it writes.

    The function that is returned waits for the end of the fork. It raises what the fork failed of: its TalError, else
    RuntimeError. Where processes cannot be forked, the function runs at once.
    """
    if not hasattr(os, "fork"):
        function()
        return lambda: None
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            function()
            code = 0
        except TalError as error:
            os.write(tell, str(error).encode("utf-8", "backslashreplace")[: select.PIPE_BUF])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(tell)

    def wait():
        with open(told, "rb") as pipe:
            problem = pipe.read().decode("utf-8", "replace")
        failed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if problem:
            raise TalError(problem)
        if failed:
            raise RuntimeError("a process that wrote a part of the results failed")

    return wait
