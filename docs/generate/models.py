"""Pydantic models as Markdown: one table of fields for each model that a file or a document is made of."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo

from architectures.quantity import Quantity
from einsum.expressions import Expression

EXAMPLES = {
    "bytes": "16 MiB", "bytes_per_s": "400 GiB/s", "hz": "940 MHz", "s": "20 ns", "j": "3.9 pJ", "m2": "600 mm2",
}  # fmt: skip
"""dimension -> a quantity as people write it."""

_PLAIN = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Any: "anything"}
_LIMITS = {"gt": "above {}", "ge": "at least {}", "lt": "below {}", "le": "at most {}", "min_length": "not empty"}


def sections(root: Any, level: int = 2) -> str:
    """A section for each model that `root` (a model, or any type made of models) is built of, the root's first."""
    return "\n\n".join(_section(model, level) for model in models(root))


def models(root: Any) -> list[type[BaseModel]]:
    """The models that a type is built of, each once, in the order in which its fields name them."""
    found: list[type[BaseModel]] = []
    waiting = [root]
    while waiting:
        kind = waiting.pop(0)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind not in found:
                found.append(kind)
                waiting = [_annotation(field) for field in kind.model_fields.values()] + waiting
        else:
            waiting = [*get_args(kind), *waiting]
    return found


def _section(model: type[BaseModel], level: int) -> str:
    lines = [f"{'#' * level} {model.__name__}", "", inspect.cleandoc(model.__doc__ or "")]
    if issubclass(model, RootModel):
        lines += ["", type_text(model.model_fields["root"].annotation)]
    else:
        lines += ["", "| field | type | default | meaning |", "|---|---|---|---|"]
        lines += [_row(name, field) for name, field in model.model_fields.items() if not field.exclude]
    return "\n".join(lines)


def _row(name: str, field: FieldInfo) -> str:
    cells = [f"`{field.alias or name}`", type_text(_annotation(field)), _default(field), field.description or ""]
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _annotation(field: FieldInfo) -> Any:
    """The field's type with what pydantic has split off from it."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True).get("kind", "")
    if value is None or (isinstance(value, (str, tuple, list, dict, Mapping)) and not value):
        return ""
    if isinstance(value, tuple):
        value = f"[{', '.join(map(str, value))}]"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def type_text(kind: Any) -> str:
    """A type in the words of someone who writes YAML."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        inner, *marks = arguments
        quantity = next((mark for mark in marks if isinstance(mark, Quantity)), None)
        limits = [text for mark in marks for text in _limits(mark)]
        return ", ".join([_quantity_text(quantity) if quantity else type_text(inner), *limits])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_text(each) for each in arguments if each is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"name → {type_text(arguments[1])}"
    if origin in (list, tuple):
        return _list_text(arguments)
    if kind is Expression:
        return "[expression](index.md#expressions)"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return _PLAIN.get(kind, getattr(kind, "__name__", str(kind)))


def _list_text(arguments: tuple[Any, ...]) -> str:
    items = [each for each in arguments if each is not Ellipsis]
    if len(items) > 1:
        return f"[{', '.join(map(type_text, items))}]"
    inner = type_text(items[0]) if items else "anything"
    return f"list of ({inner})" if " or " in inner else f"list of {inner}"


def _quantity_text(quantity: Quantity) -> str:
    shown = f", as `{EXAMPLES[quantity.dimension]}`" if quantity.dimension in EXAMPLES else ""
    return f"[{quantity.meaning}](index.md#expressions){shown}"


def _limits(mark: Any) -> Iterator[str]:
    for name, text in _LIMITS.items():
        value = getattr(mark, name, None)
        if value is not None and not (name == "min_length" and value != 1):
            yield text.format(value)
    if isinstance(mark, FieldInfo):
        yield from (text for inner in mark.metadata for text in _limits(inner))
