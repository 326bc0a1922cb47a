"""Compiling inner loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` compiled by numba to machine code, which is kept on disk where a folder can be written.

    Division by zero gives what it gives in NumPy.
    """
    try:
        return cast(F, numba.njit(cache=True, error_model="numpy")(function))
    except RuntimeError:  # neither beside this file nor in the user's cache folder
        return cast(F, numba.njit(error_model="numpy")(function))
