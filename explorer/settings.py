"""The values of variables as people write them: `65536`, `64Ki`, `32 MiB`, `causal`."""

from __future__ import annotations

from einsum.errors import EinsightError
from einsum.expressions import Expression

Setting = bool | int | float | str
"""A value of one variable: a number (SI), a truth value, or the name of something."""


def parse_setting(value: Setting, key: str | None = None) -> Setting:
    """The value that text such as `64Ki`, `32 MiB` or `2**20` stands for (SI), or the text itself where it is a name.

    Raises SpecError, located at `key`, for text that begins like a number and is none.
    """
    if not isinstance(value, str) or not (value[:1].isdigit() or value[:1] in ("+", "-", ".", "(")):
        return value
    try:
        result = Expression.parse(value.removeprefix("+")).evaluate({})
    except EinsightError as error:
        raise error.located(key=key) from None
    assert isinstance(result, (bool, int, float, str))
    return result
