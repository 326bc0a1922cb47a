"""GPU kernels as YAML: launches of grids of thread blocks, and the steps that a thread block runs for each tile.

A `GpuKernel` is the mapping of a cascade onto a GPU, at the level at which kernels are written: which blocks a grid
has, what a block loads, multiplies, computes and stores in each trip of its loops, and what it takes of the
multiprocessor while it runs. Every number is an expression of the kernel's arguments, of the architecture's variables
and of the block's coordinates x, y, z.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from einsum.errors import SpecError, nearest
from einsum.expressions import Expression
from einsum.specfile import load_yaml, parse_yaml, pydantic_error

LIBRARY = Path(__file__).parent / "library"
ZERO, ONE = Expression.parse(0), Expression.parse(1)
BLOCK_NAMES = frozenset({"x", "y", "z", "blocks_x", "blocks_y"})
"""A block's coordinates, and blocks along the grid's axes."""


class Model(BaseModel):
    """Base of all parts of a kernel: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names that its expressions depend on."""
        return frozenset(_names(tuple(vars(self).values())))


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, (Expression, Model)):
        yield from value.names
    elif isinstance(value, (tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _names(part)


class GridStep(Model):
    """One piece of a thread block's work. Exactly one of the first four fields names it and says its kind."""

    load: str | None = None
    """Reads rows of this tensor from memory, through the L2."""
    store: str | None = None
    """Writes rows of this tensor to memory."""
    product: str | None = None
    """A product of tiles on the tensor cores."""
    vector: str | None = None
    """Instructions on the lanes of the multiprocessor."""
    rows: tuple[Expression, Expression] = (ZERO, ONE)
    """load, store: first row, and the one behind the last, of what a block moves in all trips of the loop."""
    row_bytes: Expression = ZERO
    """load, store: bytes of a row that the block moves."""
    same: tuple[Expression, ...] | None = None
    """load: blocks with equal values here and overlapping rows read the same bytes; nobody shares when omitted."""
    asynchronous: Expression = ONE
    """load: runs ahead of the tile that needs it, as far as the stages of the pipeline allow."""
    batches: Expression = ONE
    """load, not asynchronous: how often it is waited for, where registers hold only a part of what is asked for."""
    again: bool = False
    """load: the block has read the same in an earlier loop."""
    piece: Expression = ZERO
    """load, store: bytes that lie together in a trip; 0 where these are whole lines."""
    hot: bool = False
    """load: written a moment before, by this kernel or the one before it, and still in the L2."""
    m: Expression = ONE
    """product: rows."""
    n: Expression = ONE
    """product: columns."""
    k: Expression = ONE
    """product: depth."""
    repeat: Expression = ONE
    """product: how often the same product is computed, where there are more warps than parts of the tile."""
    columns: Expression = ZERO
    """product of warp groups: columns of an instruction, each of which reads the left operand; 0: all of them."""
    row_warps: Expression = ZERO
    """product of single warps: how many of them stand along the rows; as many as have 16 rows each if 0."""
    held: Expression = ZERO
    """product: the left operand is in registers; else both come from the shared memory."""
    waits: Expression = ONE
    """product: 1 if what follows waits for the result; 0 if the warps go on with something else first."""
    aside: Expression = ZERO
    """product: 1 if the rest of the tile's steps run beside it, and the next tile's products behind it."""
    pace: Expression | None = None
    """vector: cycles from an instruction of a warp to its next, by the compiler's stall counts; the architecture's
    `instruction_pace` when omitted."""
    issue: Expression = ZERO
    """Lane operations of a trip: instructions x threads. product: of those that issue it and load its operands, while
    the tensor cores work."""
    half: Expression = ZERO
    """Those among them that run at half the rate (maximum, conversion)."""
    sfu: Expression = ZERO
    """Operations of the special-function unit."""
    fp32: Expression = ZERO
    """Additions, multiplications and multiply-adds of 32 bits among the lane operations."""
    shared: Expression = ZERO
    """Bytes that go through the shared memory."""
    latency: Expression = ZERO
    """Cycles until the next step may start, beyond the time that the step keeps its unit busy."""

    @cached_property
    def name(self) -> str:
        """What the step is called."""
        kind = self.kind
        return str(getattr(self, kind)) if kind in ("product", "vector") else f"{kind} {getattr(self, kind)}"

    @cached_property
    def kind(self) -> str:
        """load, store, product or vector."""
        return next(kind for kind in ("load", "store", "product", "vector") if getattr(self, kind) is not None)


class GridLoop(Model):
    """A loop of a thread block: the same steps, `trips` times."""

    trips: Expression = ONE
    """How often, for each block."""
    together: bool = False
    """A trip waits once for all of its loads, before its first product; loops with one product do so in any case."""
    steps: tuple[GridStep, ...]
    """What a trip does, in the order of the data."""


class GridLaunch(Model):
    """One launch of a grid of thread blocks."""

    launch: str
    """Its name."""
    when: Expression | None = None
    """Only if this is true."""
    grid: dict[str, Expression]
    """Blocks along x, y and z; x runs fastest."""
    warps: Expression
    """Warps of a block."""
    registers: Expression
    """Registers of a thread."""
    shared: Expression = ZERO
    """Bytes of shared memory of a block."""
    stages: Expression = ONE
    """Depth of the pipeline of asynchronous loads: tiles whose loads are under way or in use. 1: no pipeline."""
    teams: Expression = ONE
    """Groups of warps of a block that work on parts of each tile of their own, side by side."""
    overlap: Expression = ZERO
    """1 if the products of one tile run beside the vector steps of another within a team of warps."""
    free: Expression = ZERO
    """1 if teams wait for loads only, not for each other."""
    block: dict[str, Expression] = {}
    """Values that depend on the block's coordinates x, y, z."""
    loops: tuple[GridLoop, ...]
    """What a block does, loop after loop."""

    @cached_property
    def moved_by(self) -> tuple[str, ...]:
        """The kernel's names on which depends what its blocks read and write."""
        moved = [step for loop in self.loops for step in loop.steps if step.kind in ("load", "store")]
        parts = [part for step in moved for part in (*step.rows, step.row_bytes, *(step.same or ()))]
        found: set[str] = set()
        pending = {name for part in parts for name in part.names}
        while pending:
            found |= pending
            pending = {name for inner in pending & self.block.keys() for name in self.block[inner].names} - found
        return tuple(sorted(found - self.block.keys() - BLOCK_NAMES))


class GpuKernel(Model):
    """A kernel, or a few that run one after another."""

    name: str = Field(alias="gpu_kernel", min_length=1)
    """Its name."""
    description: str = ""
    """What it is, in a sentence."""
    source: str = ""
    """Where the algorithm and the numbers come from."""
    cascade: str = ""
    """The cascade that it computes."""
    sizes: dict[str, Expression] = {}
    """The cascade's sizes and variables, as expressions of the arguments."""
    where: dict[str, Expression] = {}
    """Further conditions on the cascade -> when they hold; `{name}` in the text is an argument."""
    passed: tuple[str, ...] = ()
    """Intermediate values of the cascade that go through memory from one launch to another."""
    nests: dict[str, Expression] = {}
    """Mappings that derive the same algorithm from a cascade -> when they do; the first that does is taken."""
    nest_settings: dict[str, Expression] = {}
    """Those mappings' tiles, as expressions of the arguments."""
    variables: dict[str, Expression] = {}
    """Names for use below: expressions of the arguments, of the architecture's variables and of each other."""
    takes: tuple[Literal["window", "pattern"], ...] = ()
    """What a call may ask for besides a causal mask."""
    limits: dict[str, Expression] = {}
    """Conditions that a call must meet: what is wrong otherwise -> condition."""
    tiles: tuple[dict[str, Expression], ...] = ()
    """Tiles to choose from where the call leaves them open; one with `when` only where that is true."""
    flops: Expression = ZERO
    """Operations on the tensor cores that the algorithm asks for, for a plain roofline."""
    bytes: Expression
    """Bytes that have to move between the launches and memory at least: what each reads, once, and writes."""
    launches: tuple[GridLaunch, ...]
    """Launches in order."""

    @classmethod
    def load(cls, name_or_path: str | Path) -> Self:
        """The kernel of a library name or of a YAML file; SpecError says what is wrong and where."""
        path = Path(name_or_path)
        if path.suffix not in (".yaml", ".yml"):
            path = LIBRARY / f"{name_or_path}.yaml"
            if not path.exists():
                raise SpecError(f"unknown GPU kernel '{name_or_path}'{nearest(str(name_or_path), list_kernels())}")
        return cls.parse(load_yaml(path), str(path))

    @classmethod
    def parse(cls, source: str | dict[str, Any], file: str | None = None) -> Self:
        """The kernel that YAML text or its data describes."""
        data = parse_yaml(source, file) if isinstance(source, str) else source
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise pydantic_error(error, file, cls) from None


def list_kernels() -> tuple[str, ...]:
    """The names in the library, sorted."""
    return tuple(sorted(path.stem for path in LIBRARY.glob("*.yaml")))
