"""Chooses Triton's CPU interpreter for machines without a GPU, before any test imports Triton."""

from __future__ import annotations

import os

import pytest


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


HAS_CUDA = _has_cuda()
if not HAS_CUDA:
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def has_cuda() -> bool:
    """Whether this machine has a GPU."""
    return HAS_CUDA


@pytest.fixture(scope="session")
def device() -> str:
    """Where kernels run: a GPU, or the CPU in Triton's interpreter; the test is skipped without torch or Triton."""
    pytest.importorskip("torch", reason="the kernels need torch: pip install einsight[gpu]")
    pytest.importorskip("triton", reason="the kernels need Triton: pip install einsight[gpu]")
    return "cuda" if HAS_CUDA else "cpu"
