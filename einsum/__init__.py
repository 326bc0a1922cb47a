"""What is computed: cascades of extended Einsums, how to read, run and analyse them, and the base of all descriptions.

The base that every other package uses: errors with a location, units, expressions, YAML files and their libraries.
"""

from einsum.cascade import Cascade
from einsum.einsum import Einsum
from einsum.errors import EinsightError, SpecError
from einsum.expressions import Expression, resolve
from einsum.specfile import find_spec, list_library, load_yaml
from einsum.units import format_quantity, parse_quantity

__all__ = [
    "Cascade",
    "EinsightError",
    "Einsum",
    "Expression",
    "SpecError",
    "find_spec",
    "format_quantity",
    "list_library",
    "load_yaml",
    "parse_quantity",
    "resolve",
]
