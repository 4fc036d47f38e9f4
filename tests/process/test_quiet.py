"""A machine that does other work measures no times."""

import pytest

from tal_lib import TalError
from tal_lib.process.quiet import check_quiet


def test_a_quiet_machine_is_said():
    assert check_quiet(0.5, cores=2) == "This machine is quiet (load average 0.5 on 2 cores)."


def test_a_busy_machine_is_refused_in_one_line():
    with pytest.raises(TalError, match=r"load average 2.1 on 2 cores, at most 0.5.*BUSY=1") as error:
        check_quiet(2.1, cores=2)
    assert "\n" not in str(error.value)
