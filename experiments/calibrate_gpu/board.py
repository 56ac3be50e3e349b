"""Power, energy, clocks and temperature of the board, read beside the measurement by a process of its own.

The energy counter of the board (NVML) is preferred: it is a hardware integral, where readings of power are samples. It steps
about ten times a second, so a mean power is taken between two of its steps, not between two readings. Without the NVML package,
`nvidia-smi` is asked for power ten times a second. Run as a script, this file is the sampling process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

PERIOD_S = 0.01
# Reasons for a clock below the maximum that mean the power limit: software power cap, hardware slowdown, power brake.
POWER_REASONS = 0x4 | 0x8 | 0x80
SMI_FIELDS = "power.draw,clocks.sm,clocks.mem,temperature.gpu"


@dataclass(frozen=True)
class Reading:
    """Means over a stretch of time; None where the board does not tell."""

    power_w: float | None = None
    sm_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    power_limited: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Sample:
    """One reading of the board: monotonic time in ns, energy in mJ and power in mW (-1 where unknown), clocks in MHz."""

    time_ns: int
    energy_mj: int
    power_mw: int
    sm_mhz: int
    memory_mhz: int
    temperature_c: int
    reasons: int


def summarise(samples: list[Sample]) -> Reading:
    """Return the means of samples, power from the energy counter where it stepped at least three times.

    Examples
    --------
    >>> at = lambda ms, energy: Sample(ms * 1_000_000, energy, 650_000, 1980, 2619, 50, 0)
    >>> summarise([at(0, 10), at(50, 10), at(100, 70_010), at(150, 70_010), at(200, 140_010), at(300, 210_010)]).power_w
    700.0
    """
    if not samples:
        return Reading()
    steps = [now for last, now in itertools.pairwise(samples) if now.energy_mj != last.energy_mj]
    power_w, source = None, ""
    if len(steps) >= 3:
        power_w = (steps[-1].energy_mj - steps[0].energy_mj) / (steps[-1].time_ns - steps[0].time_ns) * 1e6
        source = "energy counter"
    else:
        known = [sample.power_mw for sample in samples if sample.power_mw >= 0]
        if known:
            power_w, source = sum(known) / len(known) / 1000, "samples of power"
    count = len(samples)
    return Reading(
        power_w=power_w,
        sm_mhz=sum(sample.sm_mhz for sample in samples) / count,
        memory_mhz=sum(sample.memory_mhz for sample in samples) / count,
        temperature_c=float(max(sample.temperature_c for sample in samples)),
        power_limited=sum(bool(sample.reasons & POWER_REASONS) for sample in samples) / count,
        source=source,
    )


class Board:
    """Samples the board in the background while it is open.

    Parameters
    ----------
    index : of the board among those of the driver. Without NVML and nvidia-smi every reading is empty.
    """

    def __init__(self, index: int = 0) -> None:
        self._log = tempfile.NamedTemporaryFile("r", suffix=".csv", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
        with open(self._log.name, "w", encoding="utf-8") as target:  # noqa: PTH123 - opened by the name of a file
            self._process = subprocess.Popen([sys.executable, __file__, str(index)], stdout=target, stderr=subprocess.DEVNULL)
        self._rest = ""

    def __enter__(self) -> Board:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def between(self, start_ns: int, end_ns: int) -> Reading:
        """Return the means between two times of the monotonic clock; samples before the first are forgotten."""
        time.sleep(2 * PERIOD_S)
        samples = []
        *lines, self._rest = (self._rest + self._log.read()).split("\n")
        for line in lines:
            sample = Sample(*map(int, line.split(",")))
            if start_ns <= sample.time_ns <= end_ns:
                samples.append(sample)
        return summarise(samples)

    def watch(self, seconds: float) -> Reading:
        """Return the means over the next seconds."""
        start_ns = time.monotonic_ns()
        time.sleep(seconds)
        return self.between(start_ns, time.monotonic_ns())


def facts(index: int = 0) -> dict[str, Any]:
    """Return what NVML says of the board's settings; empty where there is no NVML. Nothing is changed."""
    try:
        import pynvml as nvml

        nvml.nvmlInit()
    except Exception:  # without package, library or board
        return {}
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    asked = {
        "driver": lambda: _plain(nvml.nvmlSystemGetDriverVersion()),
        "power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
        "default_power_limit_w": lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1000,
        "max_sm_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        "max_memory_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "application_sm_mhz": lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_SM),
        "ecc": lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0]),
        "persistence_mode": lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle)),
        "vbios": lambda: _plain(nvml.nvmlDeviceGetVbiosVersion(handle)),
        "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
    }
    found: dict[str, Any] = {}
    for name, ask in asked.items():
        with contextlib.suppress(Exception):  # a board need not know all of them
            found[name] = ask()
    nvml.nvmlShutdown()
    return found


def _plain(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else text


def _sample_nvml(index: int) -> None:
    import pynvml as nvml

    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(call: Any, *arguments: Any) -> int:
        try:
            return int(call(handle, *arguments))
        except nvml.NVMLError:
            return -1

    reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    parent = os.getppid()
    while os.getppid() == parent:
        values = (
            time.monotonic_ns(),
            ask(nvml.nvmlDeviceGetTotalEnergyConsumption),
            ask(nvml.nvmlDeviceGetPowerUsage),
            ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            max(ask(reasons), 0),
        )
        print(*values, sep=",", flush=True)
        time.sleep(PERIOD_S)


def _sample_smi(index: int) -> None:
    command = ["nvidia-smi", f"--id={index}", f"--query-gpu={SMI_FIELDS}", "--format=csv,noheader,nounits"]
    parent = os.getppid()
    while os.getppid() == parent:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        power_w, *rest = (float(value) for value in answer.split(","))
        print(time.monotonic_ns(), -1, round(power_w * 1000), *(round(value) for value in rest), 0, sep=",", flush=True)
        time.sleep(0.1)


if __name__ == "__main__":
    board_index = int(sys.argv[1])
    try:
        _sample_nvml(board_index)
    except Exception:  # no NVML: the slower way
        _sample_smi(board_index)
