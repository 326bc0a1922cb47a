"""Einsight's public names: `import einsight as es; es.simulate(mapping="fusemax-binding", workload="bert-base")`.

The names are looked up in their packages on first use, so that importing this module costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from architectures import Architecture as Architecture
    from einsum import Cascade as Cascade
    from einsum.errors import EinsightError as EinsightError
    from explorer.experiment import Experiment as Experiment
    from mappings import Mapping as Mapping
    from simulator.result import Result as Result
    from simulator.simulate import simulate as simulate
    from workloads import Workload as Workload

_HOMES = {
    "Architecture": "architectures",
    "Cascade": "einsum",
    "EinsightError": "einsum.errors",
    "Experiment": "explorer.experiment",
    "Mapping": "mappings",
    "Result": "simulator.result",
    "Workload": "workloads",
    "simulate": "simulator.simulate",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name from its package on first use. Raises AttributeError for any other name."""
    if name not in _HOMES:
        raise AttributeError(f"module 'einsight' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
