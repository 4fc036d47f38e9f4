"""Warnings of other libraries are hidden for a while; errors are not."""

import logging
import warnings

from tal_lib.process.remarks import without_remarks


def test_warnings_are_hidden_only_inside(caplog):
    log = logging.getLogger("a.library")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with without_remarks():
            log.warning("hidden")
            log.error("an error")
            warnings.warn("hidden", stacklevel=1)
        log.warning("shown")
        warnings.warn("shown", stacklevel=1)
    assert caplog.messages == ["an error", "shown"]
    assert [str(warning.message) for warning in warned] == ["shown"]


def test_an_error_inside_ends_it_and_logs_that_were_off_stay_off(monkeypatch):
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    try:
        with without_remarks():
            assert logging.root.manager.disable == logging.CRITICAL
            raise OSError
    except OSError:
        assert logging.root.manager.disable == logging.CRITICAL
