import base64
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import time
import types
import urllib.request
from concurrent.futures import ThreadPoolExecutor

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch; the processes that tests start inherit it
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # until all tests are collected: hardly anything of imported modules is garbage, and to look for it takes
    # a third of the time
    gc.disable()

import hypothesis
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from tal_lib import plugins
from tal_lib.cost import meters
from tal_lib.data import Benchmark, FeatureSpec, synthetic, write_annotations
from tal_lib.files import data_root
from tal_lib.process.fork_server import IRI_GRAMMAR, hidden

with hidden(IRI_GRAMMAR):  # of no use here, and it takes 1.5 s of every worker
    import nbformat

# No deadline: a busy machine is no fault. Every run has the same examples;
# `--hypothesis-profile explore` draws others.
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")
THREADS = int(os.environ.get("OMP_NUM_THREADS", 2))
torch.set_num_threads(THREADS)

# where the long tests are, the longest first
LONGEST = (
    "tests/test_notebooks.py",
    "tests/sweeps/test_cluster.py",
    "tests/sweeps/",
    "tests/data/test_rehearsal.py",
    "tests/test_examples.py",
    "tests/reports/test_site.py",
    "tests/reports/test_equal_recompute.py",
    "tests/cost/",
    "tests/test_export.py",
    "tests/test_settings.py",
)


def pytest_configure(config):
    """End the run if a plug-in of `TAL_PLUGINS` cannot be loaded: else its tests would be missing unseen."""
    plugins.load()
    named = {plugins.module_of(file) for file in plugins.files()}
    for module, why in plugins.broken().items():
        if module in named:
            pytest.exit(f"{plugins.VARIABLE}: {why}", returncode=2)


def _share_fork_servers():
    """Take pytest's name of the test out of the environment, by which fork servers are kept."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    _share_fork_servers()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    _share_fork_servers()
    if pyfuncitem.get_closest_marker("shallow"):
        given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
        with ThreadPoolExecutor(1) as pool:
            pool.submit(pyfuncitem.obj, **given).result()
        return True


def pytest_collection_modifyitems(items):
    """Begin with the long tests, so that no worker is left alone with one at the end."""

    def place(item):
        at = next((at for at, part in enumerate(LONGEST) if item.nodeid.startswith(part)), len(LONGEST))
        return at, item.get_closest_marker("slow") is None

    items.sort(key=place)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """What was imported and collected stays: the garbage collector need not look at it again and again.

    Little of what tests make is garbage that only it finds: a look after 10,000 new objects, not after 700,
    saves half of its time, a twentieth of all where trees of HTML are made.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)
    gc.enable()


def pytest_runtest_setup():
    """No test knows the folders of another (a sweep of a folder keeps its name for child processes), nor its
    threads (what is measured in this process sets them)."""
    os.environ.pop("TAL_FOLDERS", None)
    if torch.get_num_threads() != THREADS:
        torch.set_num_threads(THREADS)


@pytest.fixture(scope="session", autouse=True)
def no_power_cut():
    """Files need not reach the disk: only a power cut would tell, and each wait for the disk takes time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def real_data():
    """Folder of the real data, for tests that cannot do without."""

    def need(file):
        path = data_root() / file
        if not path.exists():
            pytest.skip(f"{file} is not at hand (set TAL_DATA, or `tal data fetch hapt`)")
        return path

    return need


@pytest.fixture(scope="session")
def small():
    """A small synthetic benchmark, of recordings of 40 s and more."""
    return synthetic.load(
        synthetic.SyntheticConfig(train_recordings=8, test_recordings=4, median_duration_s=30.0)
    )


@pytest.fixture(scope="session")
def released_weights():
    """Makes random weights of a TemporalMaxer under its authors' names, as a released file has them."""

    def make(dim, classes, width):
        shapes = {f"reg_head.scale.{i}.scale": () for i in range(6)}
        for i, columns in enumerate((dim, width)):
            shapes[f"backbone.embd.{i}.conv.weight"] = (width, columns, 3)
            for head in ("cls", "reg"):
                shapes[f"{head}_head.head.{i}.conv.weight"] = (width, width, 3)
            for norm in ("backbone.embd_norm", "cls_head.norm", "reg_head.norm"):
                shapes |= {f"{norm}.{i}.{part}": (1, width, 1) for part in ("weight", "bias")}
        for out, count in (("cls_head.cls_head", classes), ("reg_head.offset_head", 2)):
            shapes |= {f"{out}.conv.weight": (count, width, 3), f"{out}.conv.bias": (count,)}
        generator = torch.Generator().manual_seed(0)
        return {
            f"module.{key}": 0.3 * torch.randn(shape, generator=generator) for key, shape in shapes.items()
        }

    return make


@pytest.fixture
def tiny():
    """Makes a benchmark from annotation rows, all features zero, 100 s a recording."""

    def make(rows, recordings=("a", "b"), classes=("x", "y"), features=None, table=None):
        if table is None:
            table = pd.DataFrame({"recording": recordings, "split": "train", "duration": 100.0})
        return Benchmark(
            name="tiny",
            classes=classes,
            tious=(0.5,),
            feature_spec=FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 3}),
            recordings=table,
            annotations=pd.DataFrame(rows, columns=["recording", "start", "end", "label"]),
            load_features=features or (lambda recording: np.zeros((100, 3))),
            source_hash="0",
        )

    return make


@pytest.fixture(scope="session")
def few_recordings(tmp_path_factory):
    """A folder benchmark, smaller than `synthetic`: 20 training and 12 test recordings of 40 s and more."""
    config = synthetic.SyntheticConfig(train_recordings=20, test_recordings=12, median_duration_s=30.0)
    data, folder = synthetic.load(config), tmp_path_factory.mktemp("data") / "few"
    (folder / "features").mkdir(parents=True)
    write_annotations(folder / "annotations.json", data.table(), data.annotations())
    spec = data.feature_spec
    about = {"streams": dict(spec.streams), "stride_s": spec.stride_s, "window_s": spec.window_s}
    (folder / "features" / "spec.json").write_text(json.dumps(about))
    for name in data.recordings():
        np.save(folder / "features" / f"{name}.npy", data.features(name))
    return folder


@pytest.fixture
def in_this_process(monkeypatch):
    """A function: from now on, these modules measure in this process instead of a fresh one."""
    here = lambda function, subject, threads, **job: function(threads=threads, **job)
    return lambda *modules: [monkeypatch.setattr(module, "isolated", here) for module in modules]


@pytest.fixture
def run_cells():
    """Runs the code cells of a notebook in this process, with other parameters than its own.

    Returns a function (path of the notebook, folder of the run, **parameters) → the variables after the last
    cell, and the measured tables: name → rows.
    """
    matplotlib.use("agg")

    def run(path, out, **parameters):
        out.mkdir(parents=True, exist_ok=True)
        names = {"__name__": "__main__"}
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, path.name, "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= parameters | {"out_dir": str(out)}
        return names, json.loads((out / "measured.json").read_text())["tables"]

    return run


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("file systems cannot be mounted here")
        return folder

    yield mount
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)


class _OnCpu(torch.overrides.TorchFunctionMode):
    """Where a call of torch names a CUDA device, the CPU takes its place."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        named = {name: _on_cpu(value) for name, value in (kwargs or {}).items()}
        return func(*map(_on_cpu, args), **named)


def _on_cpu(value):
    text = str(value) if isinstance(value, str | torch.device) else ""
    return "cpu" if re.fullmatch(r"cuda(:\d+)?", text) else value


class _Event:
    """Stands in for `torch.cuda.Event`."""

    def __init__(self, enable_timing=False):
        assert enable_timing

    def record(self):
        self.at = time.perf_counter()

    def elapsed_time(self, later):
        return 1e3 * (later.at - self.at)


@pytest.fixture
def cuda(monkeypatch):
    """A pretended CUDA GPU and its NVML: calls that name a CUDA device run on the CPU.

    Returns an object whose attributes are what the pretended hardware says; a test may change them.
    """
    gpu = types.SimpleNamespace(
        allocated=100, most=600, reserved=2048, joules=0.0, a_look=0.25, uuids=[], chosen=[]
    )
    calls = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "Stand-in GPU",
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: types.SimpleNamespace(total_memory=8e9, uuid="ab-12"),
        "set_device": lambda device: gpu.chosen.append(device),
        "synchronize": lambda device=None: None,
        "reset_peak_memory_stats": lambda device=None: None,
        "memory_allocated": lambda device=None: gpu.allocated,
        "max_memory_allocated": lambda device=None: gpu.most,
        "max_memory_reserved": lambda device=None: gpu.reserved,
        "get_rng_state_all": lambda: [],
        "manual_seed_all": lambda seed: None,
        "Event": _Event,
    }
    for name, call in calls.items():
        monkeypatch.setattr(torch.cuda, name, call)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor)

    def energy(handle):
        gpu.joules += gpu.a_look
        return 1e3 * gpu.joules

    library = types.ModuleType("pynvml")
    library.NVMLError = type("NVMLError", (Exception,), {})
    library.nvmlInit = lambda: None
    library.nvmlDeviceGetHandleByUUID = lambda uuid: gpu.uuids.append(uuid) or "handle"
    library.nvmlDeviceGetHandleByIndex = lambda index: f"handle {index}"
    library.nvmlDeviceGetTotalEnergyConsumption = energy
    library.nvmlDeviceGetUtilizationRates = lambda handle: types.SimpleNamespace(gpu=50)
    library.nvmlSystemGetDriverVersion = lambda: "600.1"
    monkeypatch.setitem(sys.modules, "pynvml", library)
    gpu.nvml = library
    monkeypatch.setattr(meters.Utilisation, "SETTLED", 0.0)
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [module.allow_tf32 for module in settings]
    with _OnCpu():
        yield gpu
    for module, allowed in zip(settings, before):
        module.allow_tf32 = allowed


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
        self.wait(lambda: port_file.is_file() and port_file.read_text())
        port = port_file.read_text().split()[0]
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30))
        where = next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"]
        self.socket, self.number = websocket.create_connection(where, timeout=30), 0
        self.problems = []  # errors and warnings of the console
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

    def wait(self, condition, seconds=30):
        """Wait until a function returns something true, or fail."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, "waited in vain"
            time.sleep(0.02)

    def picture(self):
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def close(self):
        self.socket.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def open_tab(tmp_path):
    """Opens tabs of headless Chromium; they are closed afterwards."""
    if BROWSER is None:
        pytest.skip("no Chromium is at hand")
    opened = []

    def make(**options):
        opened.append(Tab(tmp_path / f"profile{len(opened)}", **options))
        return opened[-1]

    yield make
    for tab in opened:
        tab.close()
