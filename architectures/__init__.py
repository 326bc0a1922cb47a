"""What algorithms run on: memories, arrays of processing elements and what their actions cost; library/*.yaml."""

from architectures.architecture import Architecture
from architectures.evaluated import (
    EvaluatedArchitecture,
    EvaluatedMemory,
    EvaluatedOp,
    EvaluatedRegisters,
    EvaluatedUnit,
)
from architectures.parts import Memory, OpCost, Registers, Unit

__all__ = [
    "Architecture",
    "EvaluatedArchitecture",
    "EvaluatedMemory",
    "EvaluatedOp",
    "EvaluatedRegisters",
    "EvaluatedUnit",
    "Memory",
    "OpCost",
    "Registers",
    "Unit",
]
