"""The live page in a real browser: it moves, its numbers change, and its console is empty."""

import base64
import json
import shutil
import subprocess
import threading
import time
import urllib.request

import numpy as np
import pytest

from tal_lib.video import write_video
from tal_lib.video.server import make_server
from tal_lib.video.stream import Stream

from .test_live import detector, wait_for

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """A page of a headless Chromium, by its DevTools protocol."""

    def __init__(self, folder, width=1100, height=900):
        websocket = pytest.importorskip("websocket")
        self.process = subprocess.Popen(
            [
                BROWSER,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-sync",
                "--disable-component-update",
                "--remote-debugging-port=0",
                "--remote-allow-origins=*",
                f"--user-data-dir={folder}",
                f"--window-size={width},{height}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port_file = folder / "DevToolsActivePort"
        wait_for(lambda: port_file.is_file() and port_file.read_text(), 30)
        port = port_file.read_text().split()[0]
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30))
        where = next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"]
        self.socket, self.number, self.problems = websocket.create_connection(where, timeout=30), 0, []
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        asked = time.monotonic()
        while True:
            assert time.monotonic() - asked < 60, f"no answer to {method}, only events"
            message = json.loads(self.socket.recv())
            self._note(message)
            if message.get("id") == self.number:
                return message.get("result", {})

    def _note(self, message):
        about = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(about["exceptionDetails"]["text"])
        if message.get("method") == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.problems.append(str(about["args"]))
        if message.get("method") == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.problems.append(about["entry"]["text"])

    def value(self, expression):
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def picture(self):
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def close(self):
        self.socket.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def page(tmp_path):
    if BROWSER is None:
        pytest.skip("no Chromium is at hand")
    pictures = [np.full((24, 32, 3), 20 if index % 10 < 5 else 230, np.uint8) for index in range(40)]
    stream = Stream(str(write_video(tmp_path / "video.mp4", pictures, 10)), detector()).start()
    server = make_server(stream, port=0)
    threading.Thread(target=server.run, daemon=True).start()
    tab = Tab(tmp_path / "profile")
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
