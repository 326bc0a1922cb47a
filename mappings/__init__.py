"""How a cascade is run: loop nests, held tiles, bindings to units, and their lowering to tile programs."""

from mappings.mapping import Mapping
from mappings.program import Dependence, Phase, Resource, Step, Stream, TileProgram, Traffic

__all__ = ["Dependence", "Mapping", "Phase", "Resource", "Step", "Stream", "TileProgram", "Traffic"]
