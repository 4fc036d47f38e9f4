"""Write a part of the results in a fork, while this process goes on."""

import os
import traceback
from collections.abc import Callable


def in_background(function: Callable[[], object]) -> Callable[[], None]:
    """Run a function in a fork, for what it writes.

    The function that is returned waits for the end of the fork. It raises RuntimeError if the fork failed.
    Where processes cannot be forked, the function runs at once.
    """
    if not hasattr(os, "fork"):
        function()
        return lambda: None
    child = os.fork()
    if not child:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def wait():
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise RuntimeError("a process that wrote a part of the results failed")

    return wait
