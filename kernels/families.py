"""The kernel families by name, imported (with torch and Triton) only when one is asked for."""

from __future__ import annotations

import importlib
from typing import Any, Protocol, cast

from einsum.errors import EinsightError, nearest
from kernels.case import KERNELS, Case


class Family(Protocol):
    """What each module in kernels/algorithms offers for measuring and checking its kernel."""

    def unsupported(self, case: Case) -> str | None:
        """Why this family cannot run `case`, or None."""

    def make_inputs(self, case: Case, device: str, seed: int) -> dict[str, Any]:
        """Tensors that the kernel reads and writes; random inputs, outputs full of NaN."""

    def run(self, case: Case, tensors: dict[str, Any]) -> Any:
        """Launch the kernel or kernels; the output tensor."""

    def reference(self, case: Case, tensors: dict[str, Any]) -> Any:
        """The output in float64, computed without Triton."""


def family(name: str) -> Family:
    """The module of kernel `name`. Raises EinsightError for an unknown name or where torch or Triton is missing."""
    if name not in KERNELS:
        raise EinsightError(f"unknown kernel '{name}'{nearest(name, KERNELS)}")
    require_triton()
    return cast(Family, importlib.import_module(f"kernels.algorithms.{name}"))


def require_triton() -> None:
    """Raise EinsightError if torch or Triton is not installed."""
    for package in ("torch", "triton"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise EinsightError(
                f"the GPU kernels need {package}, which is not installed: install einsight[gpu]"
            ) from error
