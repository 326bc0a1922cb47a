"""What all documents share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Setting = bool | int | float | str
"""A value of an input or a result."""


class Document(BaseModel):
    """Base of all documents and their parts: what is not named here does not occur."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
