"""A bar lives as long as its cell, and only a person with an open notebook sees it."""

import threading

import pytest
from IPython.core.interactiveshell import InteractiveShell

from tal_lib import TalError
from tal_lib.reports import waiting


@pytest.fixture
def shell(monkeypatch):
    """IPython that runs cells, as in a notebook that a person has open."""
    shell = InteractiveShell(user_ns={"waiting": waiting})
    monkeypatch.setattr(waiting, "_events", lambda: shell.events)
    monkeypatch.setattr(waiting.progress, "shown", lambda progress: True)
    monkeypatch.setattr(waiting, "EVERY_S", 0.01)
    return shell


def clocks():
    return [thread for thread in threading.enumerate() if thread.name == waiting.CLOCK]


def test_a_bar_counts_steps_and_ends_with_its_cell(shell, capsys):
    shell.run_cell("waiting.begin('formats', steps=2)\nwaiting.step()\nassert len(waiting._shown) == 1")
    assert not waiting._shown and not clocks()
    assert "formats:  50%" in capsys.readouterr().err
    shell.run_cell("waiting.step()")  # a cell without a bar
    assert "formats" not in capsys.readouterr().err


def test_a_clock_runs_while_nothing_else_happens(shell, capsys, monkeypatch):
    shell.run_cell("import time\nwaiting.begin('the live demo')\ntime.sleep(1.2)")
    assert "the live demo: 00:00" in (drawn := capsys.readouterr().err) and "the live demo: 00:01" in drawn


def test_a_bar_ends_with_an_error_and_when_another_begins(shell, capsys):
    shell.run_cell("waiting.begin('first')\nwaiting.begin('second')\nassert len(waiting._shown) == 1\n1 / 0")
    assert not waiting._shown and not clocks()
    assert waiting.end not in shell.events.callbacks[waiting.ENDS]
    assert "second" in capsys.readouterr().err


def test_nothing_is_shown_without_a_reader(capsys, monkeypatch):
    monkeypatch.setattr(waiting, "check_quiet", lambda: 1 / 0)
    waiting.begin("formats", steps=2)
    waiting.step()
    waiting.on_a_quiet_machine()
    waiting.end()
    assert not waiting._shown and capsys.readouterr() == ("", "")


def test_a_busy_machine_is_said_on_the_page(shell, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(waiting, "display", lambda markdown: shown.append(markdown.data))
    monkeypatch.setattr(waiting, "check_quiet", lambda: "This machine is quiet.")
    waiting.on_a_quiet_machine()
    assert shown == []

    def busy():
        raise TalError("this machine is busy (load average 2.0 on 2 cores)", remedy="make costs BUSY=1")

    monkeypatch.setattr(waiting, "check_quiet", busy)
    waiting.on_a_quiet_machine()
    assert shown == [
        "**This machine is busy (load average 2.0 on 2 cores).** "
        "Stop other programs, wait a minute, and run this page again."
    ]
