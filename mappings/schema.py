"""The YAML form of a mapping: a tree of loops, kept tensors and computed Einsums.

A nest is a list. Loops (`for`) and keeps in it enclose everything that follows them in the list; what follows is
computed Einsums, stalls, and the branch nodes `sequence`, `parallel` and `pipeline`, whose children are nests or nodes
themselves. Every field has a description: the reference pages and the error messages are made from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from einsum.errors import SpecError, join_key, nearest
from einsum.expressions import Expression
from einsum.specfile import pydantic_error


class Model(BaseModel):
    """Base of all parts of a mapping: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class Kept(Model):
    """How one tensor, or a group of tensors that share one allocation, is held at a level."""

    tensors: Names = Field(default=(), description="Tensors that share the allocation; the entry's own name if empty.")
    buffers: Literal["rolling"] | Expression = Field(
        default=Expression.parse(1),
        union_mode="left_to_right",
        description="Copies of the tile: 1 loads and uses in turn, 2 loads one while the other is used; `rolling`: one "
        "copy that is replaced piece by piece as it is used, so that loads overlap with use.",
    )
    when: Expression | None = Field(default=None, description="Hold it only if this is true; held further out else.")
    overflow: Literal["error", "spill"] = Field(
        default="error",
        description="When the level is too small: an error, or spill: the part that does not fit passes through, each "
        "access to it goes on to the next level out.",
    )


class Loops(Model):
    """`for`: temporal loops, outermost first. Each visits a rank in chunks of so many coordinates."""

    ranks: dict[str, Expression] = Field(alias="for", description="rank -> coordinates in one iteration.")


class Grid(Model):
    """`grid`: outermost loops whose iterations are instances (thread blocks) that run side by side, one on each copy of
    the private units and memories. The last rank runs fastest."""

    ranks: dict[str, Expression] = Field(alias="grid", description="rank -> coordinates of one instance.")
    slots: Expression | None = Field(
        default=None,
        description="Instances that one copy holds at a time (occupancy), 1 unless given; on a GPU it follows from "
        "what a block takes.",
    )
    warps: Expression | None = Field(default=None, description="GPU: warps of a thread block.")
    specialized: Expression | None = Field(
        default=None,
        description="GPU: 1 if warps of their own issue the loads, so that the others wait for loads only and not for "
        "each other (warp specialization); 0 unless given.",
    )
    backward: Names = Field(default=(), description="GPU: ranks whose last chunk is the first to start.")


class Keep(Model):
    """`keep`: tensors whose tile, as the loops above cut it, is held at a level until those loops move on."""

    keep: dict[str, dict[str, Kept]] = Field(description="level (a memory, or a unit for its registers) -> tensors.")


class Stage(Model):
    """`stage`: tiles that pass through a level in a buffer; they take capacity there but are not stored and re-read."""

    stage: dict[str, dict[str, Kept]] = Field(description="level -> tensors.")


class Compute(Model):
    """`compute`: one Einsum, or several in one pass over their points, on a unit."""

    compute: Names = Field(description="The Einsum, or Einsums that run point by point together, in order.")
    on: str = Field(description="The unit that computes.")
    spatial: dict[str, str] = Field(
        default_factory=dict, description="rank -> dimension of the unit that it is laid on."
    )
    temporal: tuple[str, ...] | None = Field(
        default=None, description="Order of the remaining ranks, outermost first; by default that of the Einsum."
    )
    issue: Literal["serial", "chained"] = Field(
        default="serial",
        description="serial: a point takes the cycles of all its operations one after another; chained: they run as a "
        "pipeline, a point takes as long as its slowest operation.",
    )
    spread: str | None = Field(
        default=None, description="Work due once per loop over this rank is spread evenly over the loop's iterations."
    )
    lag: int = Field(default=0, ge=0, description="Works on the tile that is so many tiles behind the newest one.")


class Stall(Model):
    """`stall`: cycles in which nothing of the sequence runs."""

    stall: Expression = Field(description="Cycles of the architecture's clock, or of the unit's.")
    on: str | None = Field(default=None, description="The unit whose clock counts.")


class Branch(Model):
    """Children that run in `sequence`, in `parallel` (side by side, joined at the end), or as a `pipeline`.

    In a sequence one tile ends before the next begins. In a pipeline tiles overlap freely, at most `depth` in flight.
    """

    kind: Literal["sequence", "parallel", "pipeline"] = Field(description="How the children run; written as the key.")
    children: tuple[tuple[Node, ...], ...] = Field(description="Nests or single nodes; written as the key's value.")
    depth: Expression | None = Field(default=None, description="pipeline: tiles in flight at most.")


class Choice(Model):
    """One alternative of a `select`."""

    when: Expression = Field(description="Taken if this is true and no earlier alternative was.")
    do: tuple[Node, ...] = Field(description="The nest, or the single node, that is taken.")


class Select(Model):
    """`select`: the first alternative whose condition holds."""

    select: tuple[Choice, ...] = Field(description="The alternatives, in the order in which they are tried.")


Node = Loops | Grid | Keep | Stage | Compute | Stall | Branch | Select

M = TypeVar("M", bound=Model)
_MODELS: dict[str, type[Loops | Grid | Keep | Stage | Compute | Stall]] = {
    "for": Loops,
    "grid": Grid,
    "keep": Keep,
    "stage": Stage,
    "compute": Compute,
    "stall": Stall,
}
_BRANCHES = ("sequence", "parallel", "pipeline")
_KINDS = ("for", "grid", "keep", "stage", "compute", "stall", *_BRANCHES, "select")


def parse_nest(data: Any, key: str) -> tuple[Node, ...]:
    """A nest from YAML data: a list of nodes, or one node. SpecError names the key path of a mistake."""
    items = data if isinstance(data, list) else [data]
    if not items:
        raise SpecError("the nest is empty, expected loops, keeps and computed Einsums", key=key)
    return tuple(_parse_node(item, join_key(key, index) or key) for index, item in enumerate(items))


def _parse_node(item: Any, key: str) -> Node:
    if isinstance(item, str):
        raise SpecError(
            f"expected a node such as {{compute: {item[:40]}, on: UNIT}}, found text '{item[:60]}'", key=key
        )
    if not isinstance(item, dict):
        raise SpecError(f"expected a node (a mapping with one of {', '.join(_KINDS)}), found {item!r:.60}", key=key)
    kinds = [kind for kind in _KINDS if kind in item]
    if len(kinds) != 1:
        found = ", ".join(map(str, item)) or "nothing"
        hint = nearest(str(next(iter(item))), _KINDS) if item and not kinds else ""
        raise SpecError(f"expected exactly one of {', '.join(_KINDS)}, found {found}{hint}", key=key)
    kind = kinds[0]
    if kind in _BRANCHES:
        return _parse_branch(kind, item, key)
    if kind == "select":
        return _parse_select(item, key)
    if kind in ("keep", "stage"):
        item = {**item, kind: _parse_levels(item[kind], join_key(key, kind) or key)}
    return _validated(_MODELS[kind], item, key)


def _validated(model: type[M], data: Any, key: str) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise pydantic_error(error, model=model, key=key) from None


def _parse_branch(kind: str, item: dict[str, Any], key: str) -> Branch:
    unknown = [name for name in item if name not in (kind, "depth")]
    if unknown:
        raise SpecError(f"unknown field '{unknown[0]}'{nearest(str(unknown[0]), (kind, 'depth'))}", key=key)
    children = item[kind]
    here = join_key(key, kind) or key
    if not isinstance(children, list) or not children:
        raise SpecError(f"expected a list of nests, found {children!r:.60}", key=here)
    nests = tuple(parse_nest(child, join_key(here, index) or here) for index, child in enumerate(children))
    depth = None
    if "depth" in item:
        if kind != "pipeline":
            raise SpecError(f"only a pipeline has a depth, found it in a {kind}", key=key)
        depth = _parsed(item["depth"], join_key(key, "depth") or key)
    return Branch(kind=kind, children=nests, depth=depth)


def _parse_select(item: dict[str, Any], key: str) -> Select:
    choices = item["select"]
    here = join_key(key, "select") or key
    if not isinstance(choices, list) or not choices:
        raise SpecError(f"expected a list of alternatives with 'when' and 'do', found {choices!r:.60}", key=here)
    parsed = []
    for index, choice in enumerate(choices):
        place = join_key(here, index) or here
        if not isinstance(choice, dict) or set(choice) != {"when", "do"}:
            raise SpecError(f"expected an alternative with 'when' and 'do', found {choice!r:.60}", key=place)
        parsed.append(
            Choice(
                when=_parsed(choice["when"], join_key(place, "when") or place),
                do=parse_nest(choice["do"], join_key(place, "do") or place),
            )
        )
    return Select(select=tuple(parsed))


def _parse_levels(data: Any, key: str) -> dict[str, dict[str, Kept]]:
    if not isinstance(data, dict) or not data:
        raise SpecError(f"expected levels with tensors, such as {{L3: [Q, K]}}, found {data!r:.60}", key=key)
    return {level: _parse_entries(entries, join_key(key, str(level)) or key) for level, entries in data.items()}


def _parse_entries(entries: Any, key: str) -> dict[str, Kept]:
    if isinstance(entries, str):
        entries = [entries]
    if isinstance(entries, list):
        entries = {name: {} for name in entries if isinstance(name, str)} if _texts(entries) else entries
    if not isinstance(entries, dict) or not entries:
        raise SpecError(f"expected tensor names, or a mapping of them to options, found {entries!r:.60}", key=key)
    kept: dict[str, Kept] = {}
    for name, options in entries.items():
        data = options if isinstance(options, dict) else {} if options is None else {"buffers": options}
        entry = _validated(Kept, data, join_key(key, str(name)) or key)
        kept[str(name)] = entry if entry.tensors else entry.model_copy(update={"tensors": (str(name),)})
    return kept


def _texts(entries: Sequence[Any]) -> bool:
    return all(isinstance(entry, str) for entry in entries)


def _parsed(source: Any, key: str) -> Expression:
    try:
        return Expression.parse(source)
    except SpecError as error:
        raise error.located(key=key) from None


Branch.model_rebuild()
Choice.model_rebuild()
