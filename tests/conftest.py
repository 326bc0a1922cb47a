"""What all tests share: hypothesis' profile, and skipping what this machine cannot run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.util import find_spec

import pytest
from hypothesis import settings

# Times vary on shared machines: hypothesis measures no deadline, and a failure is printed so that it can be repeated.
settings.register_profile("einsight", deadline=None, print_blob=True)
settings.load_profile("einsight")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip `gpu` tests without a CUDA device and `browser` tests without a Chromium, each with the reason."""
    for marker, reason in (("gpu", why_no_gpu), ("browser", _why_no_browser)):
        marked = [item for item in items if item.get_closest_marker(marker)]
        missing = reason() if marked else None
        for item in marked:
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


def why_no_gpu() -> str | None:
    """What this machine lacks for kernels on a GPU, or None."""
    if find_spec("torch") is None:
        return "torch is not installed (pip install 'einsight[gpu]')"
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


def _why_no_browser() -> str | None:
    return None if find_chromium() else "no chromium on the path (apt-get install chromium)"


def find_chromium() -> str | None:
    """The path of a Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture
def chromium() -> str:
    """The path of a Chromium, for tests marked `browser`."""
    path = find_chromium()
    assert path, "mark the test with pytest.mark.browser"
    return path
