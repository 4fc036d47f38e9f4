"""The live page in a real browser: it moves, its numbers change, and its console is empty."""

import threading
import time

import numpy as np
import pytest

from tal_lib.video import write_video
from tal_lib.video.server import make_server
from tal_lib.video.stream import Stream

from .test_live import detector, wait_for


@pytest.fixture
def page(tmp_path, open_tab):
    pictures = [np.full((24, 32, 3), 20 if index % 10 < 5 else 230, np.uint8) for index in range(40)]
    stream = Stream(str(write_video(tmp_path / "video.mp4", pictures, 10)), detector()).start()
    server = make_server(stream, port=0)
    threading.Thread(target=server.run, daemon=True).start()
    tab = open_tab()
    tab.ask("Page.navigate", url=f"http://127.0.0.1:{server.effective_port}/")
    yield tab, stream
    tab.close()
    stream.stop()
    server.close()


def test_the_page_lives(page):
    tab, stream = page
    text = "document.getElementById('{}').textContent"
    wait_for(lambda: "frames/s" in (tab.value(text.format("numbers")) or ""), 20)
    numbers, seconds = tab.value(text.format("numbers")), tab.value(text.format("seconds"))
    pictures = {tab.picture() for _ in range(8) if time.sleep(0.3) is None}
    assert len(pictures) >= 3  # the stream moves
    wait_for(
        lambda: tab.value(text.format("numbers")) != numbers and tab.value(text.format("seconds")) != seconds,
        10,
    )
    assert (
        tab.value(text.format("action")) in ("dark", "bright")
        and tab.value(text.format("state")) == "playing"
    )
    assert tab.value("document.querySelectorAll('#legend li').length") == 2
    assert tab.value("document.documentElement.scrollWidth <= window.innerWidth")
    assert stream.viewers == 1 and tab.problems == []


def test_it_fits_a_phone_and_says_when_the_server_is_gone(page):
    tab, stream = page
    tab.ask("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    wait_for(lambda: tab.value("document.querySelectorAll('#seconds tr').length") == 3, 20)
    assert tab.value("document.documentElement.scrollWidth") <= 360
    stream.source.stop()
    stream.source.state, stream.source.problem = "lost", "gone"
    wait_for(lambda: "lost" in tab.value("document.getElementById('state').textContent"), 10)
    assert tab.value("document.getElementById('state').className") == "lost" and tab.problems == []
