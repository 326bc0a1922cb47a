"""What algorithms run on: memories, arrays of processing elements and what their actions cost; library/*.yaml."""

from architectures.architecture import Architecture
from architectures.evaluated import (
    EvaluatedArchitecture,
    EvaluatedMemory,
    EvaluatedOp,
    EvaluatedRegisters,
    EvaluatedSelector,
    EvaluatedUnit,
)
from architectures.parts import Memory, OpCost, Registers, Selector, Unit

__all__ = [
    "Architecture",
    "EvaluatedArchitecture",
    "EvaluatedMemory",
    "EvaluatedOp",
    "EvaluatedRegisters",
    "EvaluatedSelector",
    "EvaluatedUnit",
    "Memory",
    "OpCost",
    "Registers",
    "Selector",
    "Unit",
]
