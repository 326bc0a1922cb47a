"""What is installed of Einsight's optional parts, what is missing for which use, and how to get it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from einsum.specfile import LIBRARIES, list_library

_FEATURES = {
    "": "all commands",
    "gpu": "kernels on a GPU: measure, calibrate",
    "cluster": "sweeps over a cluster: sweep --scheduler",
    "search": "evolutionary search: sampler of a sweep",
    "parquet": "report --export points.parquet",
}
"""Extra of the distribution -> what it is for; extras for developers are not listed."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")


def checkup() -> dict[str, Any]:
    """Version, place and libraries, and each optional part with the version that was found or the way to get it."""
    return {
        "version": metadata.version("einsight"),
        "python": platform.python_version(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "place": str(Path(__file__).resolve().parent.parent),
        "library": {kind: len(list_library(kind)) for kind in LIBRARIES},
        "features": [*_packages(), *_machine()],
    }


def _packages() -> Iterator[dict[str, str | None]]:
    """The packages that the distribution itself says it needs, with and without each extra."""
    for requirement in metadata.requires("einsight") or []:
        named, extra = _NAME.match(requirement), _EXTRA.search(requirement)
        use = extra[1] if extra else ""
        if named and use in _FEATURES:
            found = _version(named[0])
            get = f"pip install 'einsight[{use}]'" if use else f"pip install {named[0]}"
            yield _part(_FEATURES[use], named[0], found, get)


def _machine() -> Iterator[dict[str, str | None]]:
    """What pip does not install: the GPU, its profiler, a browser."""
    from kernels.counters import find_ncu

    gpu = _FEATURES["gpu"]
    yield _part(gpu, "an NVIDIA GPU with CUDA", _cuda_device(), "run it on a machine with one, with NVIDIA's driver")
    yield _part("clocks in measurements", "nvidia-ml-py", _version("nvidia-ml-py"), "pip install nvidia-ml-py")
    try:
        ncu: str | None = find_ncu()
    except Exception:
        ncu = None
    yield _part("measure --counters", "ncu", ncu, "install NVIDIA Nsight Compute")
    browsers = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next((path for name in browsers if (path := shutil.which(name))), None)
    yield _part("tests of the HTML pages; any browser opens them", "chromium", browser, "apt-get install chromium")


def _part(feature: str, needs: str, found: str | None, get: str) -> dict[str, str | None]:
    return {"feature": feature, "needs": needs, "found": found, "get": None if found else get}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cuda_device() -> str | None:
    """The name of the GPU that torch finds, or None; torch is imported only where NVIDIA's driver is."""
    if sys.platform == "linux" and not Path("/proc/driver/nvidia").exists() and not shutil.which("nvidia-smi"):
        return None
    if not _version("torch"):
        return None
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
