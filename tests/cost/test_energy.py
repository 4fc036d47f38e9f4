"""Energy: a made-up powercap folder, a pretended NVML, and machines that expose nothing."""

import sys
import time
import types

import pytest

from tal_lib.cost import describe_machine, machine, meters


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The rate of matrix products is of no interest here."""
    monkeypatch.setattr(machine, "_ceiling", lambda *_: 1.0)


@pytest.fixture
def rapl(tmp_path, monkeypatch):
    """Writes a zone of a made-up powercap folder: its name and its counter in joules (or any text)."""
    monkeypatch.setattr(meters, "RAPL", tmp_path)

    def write(zone, name, joules):
        folder = tmp_path / zone
        folder.mkdir(exist_ok=True)
        (folder / "name").write_text(f"{name}\n")
        text = joules if isinstance(joules, str) else str(int(joules * 1e6))
        (folder / "energy_uj").write_text(f"{text}\n")
        (folder / "max_energy_range_uj").write_text("100000000\n")

    return write


def test_packages_are_summed_and_their_parts_are_not(rapl):
    rapl("intel-rapl:0", "package-0", 10)
    rapl("intel-rapl:1", "package-1", 95)
    rapl("intel-rapl:0:0", "core", 1)
    rapl("intel-rapl-mmio:0", "package-0", 10)  # the same counter once more
    with meters.Energy("cpu") as energy:
        rapl("intel-rapl:0", "package-0", 13)
        rapl("intel-rapl:1", "package-1", 1)  # it restarted at 100
        rapl("intel-rapl:0:0", "core", 50)
        rapl("intel-rapl-mmio:0", "package-0", 13)
    assert energy.joules == pytest.approx(3 + 6) and meters.energy_source("cpu") == "RAPL"
    assert describe_machine()["energy_counter"] == "RAPL"


def test_joules_of_a_call_are_those_of_all_calls_by_their_number(rapl):
    used = [0]

    def call():
        used[0] += 2
        rapl("intel-rapl:0", "package-0", used[0])

    call()
    assert meters.joules_per_call(call, "cpu", min_seconds=0.0, least=4) == pytest.approx(2)
    assert used[0] == 2 * 5


@pytest.mark.parametrize("content", ["", "many", None])
def test_a_counter_that_cannot_be_read_is_none(rapl, tmp_path, content):
    rapl("intel-rapl:0", "package-0", content or "")
    if content is None:
        (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    calls = []
    assert (
        meters.energy_source("cpu") == "" and meters.joules_per_call(lambda: calls.append(1), "cpu") is None
    )
    with meters.Energy("cpu") as energy:
        pass
    assert energy.joules is None and calls == []  # nothing runs for nothing


def test_the_board_of_the_gpu_that_torch_sees(cuda):
    with meters.Energy("cuda") as energy, meters.Utilisation("cuda") as utilisation:
        time.sleep(0.05)
    assert energy.joules == pytest.approx(0.25) and utilisation.mean == 0.5
    assert meters.energy_source("cuda") == "NVML" and set(cuda.uuids) == {"GPU-ab-12"}


def test_utilisation_does_not_count_what_nvml_saw_before(cuda, monkeypatch):
    monkeypatch.setattr(meters.Utilisation, "SETTLED", 10.0)
    with meters.Utilisation("cuda") as utilisation:
        time.sleep(0.02)
    assert utilisation.mean is None


def test_counting_begins_and_ends_when_the_counter_is_renewed(cuda, monkeypatch):
    """100 W, renewed ten times a second: three milliseconds of work are 0.3 J, wherever counting begins."""
    clock = types.SimpleNamespace(now=0.05)

    def look(handle):
        clock.now += 1e-4
        return 1e3 * 100 * 0.1 * int(clock.now / 0.1)

    def work():
        clock.now += 0.003

    cuda.nvml.nvmlDeviceGetTotalEnergyConsumption = look
    monkeypatch.setattr(meters, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    assert meters.joules_per_call(work, "cuda", min_seconds=0.26) == pytest.approx(0.3, rel=0.03)
    assert clock.now < 0.6
    started = clock.now
    slow = lambda: setattr(
        clock, "now", clock.now + 1.0
    )  # longer than a renewal: no further call for its sake
    assert meters.joules_per_call(slow, "cuda", min_seconds=0.26) == pytest.approx(100, rel=0.04)
    assert clock.now == pytest.approx(started + 3, abs=0.2)


@pytest.mark.parametrize("lack", ["library", "driver", "counter"])
def test_a_gpu_without_nvml_has_no_energy(cuda, monkeypatch, lack):
    def refuse(*_):
        raise cuda.nvml.NVMLError("not supported")

    if lack == "library":
        monkeypatch.setitem(sys.modules, "pynvml", None)  # the import fails
    elif lack == "driver":
        cuda.nvml.nvmlInit = refuse
    else:  # a part of a GPU
        for name in ("HandleByUUID", "TotalEnergyConsumption", "UtilizationRates"):
            setattr(cuda.nvml, f"nvmlDeviceGet{name}", refuse)
    with meters.Energy("cuda") as energy, meters.Utilisation("cuda") as utilisation:
        pass
    assert energy.joules is None and utilisation.mean is None and meters.energy_source("cuda") == ""
    assert describe_machine("cuda")["energy_counter"] == "none"
