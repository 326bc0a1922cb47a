"""The GPU that is measured: what it is, what software drives it, and its clocks, temperature and power under load."""

from __future__ import annotations

import datetime
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from einsum.errors import EinsightError
from kernels.families import require_triton


def require_cuda() -> None:
    """Raise EinsightError, saying in one sentence what is missing, unless kernels can run on a CUDA GPU here."""
    require_triton()
    import torch

    if not torch.cuda.is_available():
        raise EinsightError("measuring needs an NVIDIA GPU with CUDA, and torch finds none on this machine")


def device_facts() -> dict[str, str | int | float]:
    """What the current GPU is, by the driver. Bytes, MHz and W where the name says so."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    facts: dict[str, str | int | float] = {
        "device": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "shared_bytes_per_multiprocessor": properties.shared_memory_per_multiprocessor,
        "registers_per_multiprocessor": properties.regs_per_multiprocessor,
    }
    for name, field in (("max_sm_clock_mhz", "clocks.max.sm"), ("max_mem_clock_mhz", "clocks.max.mem"),
                        ("power_limit_w", "power.limit"), ("driver", "driver_version")):  # fmt: skip
        value = _nvidia_smi(field)
        if value is not None:
            facts[name] = value if name == "driver" else float(value)
    return facts


def software_facts() -> dict[str, str]:
    """Versions of what compiles and launches the kernels."""
    import torch
    import triton

    return {
        "cuda": str(torch.version.cuda),
        "torch": str(torch.__version__),
        "triton": str(triton.__version__),
        "python": platform.python_version(),
    }


def now() -> str:
    """The time, for a file's provenance."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Readings:
    """State of the GPU at one moment; None where the driver does not say."""

    sm_clock_mhz: float | None = None
    mem_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None


class Monitor:
    """Reads the GPU's state through NVML (package nvidia-ml-py), or nothing where that is not installed."""

    INTERVAL_S = 0.002

    def __init__(self) -> None:
        self._nvml: Any = None
        try:
            import pynvml
            import torch

            pynvml.nvmlInit()
            uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
            self._nvml = pynvml
        except ImportError:
            print("clocks and temperature are not recorded: nvidia-ml-py is not installed", file=sys.stderr)
        except Exception as error:  # NVML's own exceptions, which have no common base outside it
            print(f"clocks and temperature are not recorded: {error}", file=sys.stderr)

    def watch(self, finished: Callable[[], bool]) -> Readings:
        """The state until `finished()`: median clocks, the last temperature and power. It is read once at least."""
        seen = [self.read()]
        while not finished():
            time.sleep(self.INTERVAL_S)
            seen.append(self.read())
        return Readings(
            sm_clock_mhz=_median([one.sm_clock_mhz for one in seen]),
            mem_clock_mhz=_median([one.mem_clock_mhz for one in seen]),
            temperature_c=seen[-1].temperature_c,
            power_w=seen[-1].power_w,
        )

    def read(self) -> Readings:
        """The state now."""
        if self._nvml is None:
            return Readings()
        nvml, handle = self._nvml, self._handle
        return Readings(
            sm_clock_mhz=float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            mem_clock_mhz=float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            temperature_c=float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            power_w=nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        )


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median_low(known) if known else None


def _nvidia_smi(field: str) -> str | None:
    """One field of nvidia-smi's query for the first GPU, without its unit; None where it cannot be had."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    text = answer.stdout.strip()
    return text if text and "N/A" not in text else None
