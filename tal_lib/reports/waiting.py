"""What a person sees while a cell of an open notebook works for minutes: a bar, or a clock.

    waiting.begin("exporting to 3 formats", steps=3)     # the bar of this cell
    waiting.step()                                       # one is done
    waiting.on_a_quiet_machine()                         # a remark if other programs run

The bar ends with its cell, also by an error. In a sweep and while pages are rendered, nothing is shown
(see `process.progress`). As statements these calls are no part of a notebook's version (see `fingerprint`).
"""

import sys
import threading

from IPython.display import Markdown, display
from tqdm.auto import tqdm

from tal_lib.errors import TalError
from tal_lib.process import progress
from tal_lib.process.quiet import check_quiet

EVERY_S = 1.0  # between two drawings of a bar
ENDS = "post_run_cell"  # IPython's event at the end of a cell
CLOCK = "clock of a bar"  # name of the thread

_shown: list["_Bar"] = []  # the bar of the current cell, if it has one


class _Bar:
    """A bar whose clock runs between steps too."""

    def __init__(self, text, steps):
        form = "{desc}: {elapsed}" if steps is None else None
        self.tqdm = tqdm(desc=text, total=steps, bar_format=form)
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._run, name=CLOCK, daemon=True)
        self._clock.start()

    def _run(self):
        while not self._ended.wait(EVERY_S):
            self.tqdm.refresh()

    def end(self):
        self._ended.set()
        self._clock.join()
        self.tqdm.close()


def begin(text: str, steps: int | None = None) -> None:
    """Show a bar until the cell ends, or until the next bar begins.

    Args:
        steps: calls of `step` that are to come. None: unknown, and the bar is a clock.
    """
    end()
    if progress.shown(None):
        _shown.append(_Bar(text, steps))
        _events().register(ENDS, end)


def step() -> None:
    """One step of the bar is done."""
    for bar in _shown:
        bar.tqdm.update()


def end(_result=None) -> None:
    """End the bar. The end of a cell calls this."""
    if _shown:
        _shown.pop().end()
        _events().unregister(ENDS, end)


def on_a_quiet_machine() -> None:
    """Display a remark if other programs run, so that measured times would be too long."""
    if progress.shown(None):
        try:
            check_quiet()
        except TalError as busy:
            remedy = "Stop other programs, wait a minute, and run this page again."
            display(Markdown(f"**{busy.problem[:1].upper()}{busy.problem[1:]}.** {remedy}"))


def _events():
    return sys.modules["IPython"].get_ipython().events
