"""What descriptions share: reading and writing; of those that are one pydantic model, checking and variables too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from einsum.expressions import Expression
from einsum.files import whole_file
from einsum.specfile import find_spec, load_yaml, parse_yaml, pydantic_error


class FromFile:
    """Anything that a YAML file of a kind describes. A subclass names its `KIND` and has a `parse`."""

    KIND: ClassVar[str]

    @classmethod
    def load(cls, name_or_path: str | Path) -> Self:
        """The description of a library name or of a YAML file; SpecError says what is wrong and where."""
        path = find_spec(cls.KIND, name_or_path)
        return cls.parse(load_yaml(path), file=str(path))

    @classmethod
    def parse(cls, source: str | Mapping[str, Any], file: str | None = None) -> Self:
        """The description in YAML text or its data."""
        raise NotImplementedError


def write_data(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write a description's data as YAML; a partial file is never left behind."""
    with whole_file(path) as partial:
        partial.write_text(yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True), encoding="utf-8")


class Description(FromFile, BaseModel):
    """A description of a kind: it never changes, knows all its fields, and remembers the file that it came from.

    A subclass names its `KIND`, has the field `variables`, and says in `check` what has to hold with their defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    _file: str | None = PrivateAttr(default=None)

    @classmethod
    def parse(cls, source: str | Mapping[str, Any], file: str | None = None) -> Self:
        """The description in YAML text or its data, checked with the default values of its variables."""
        data = parse_yaml(source, file) if isinstance(source, str) else source
        try:
            found = cls.model_validate(data)
        except ValidationError as error:
            raise pydantic_error(error, file, cls) from None
        found._file = file
        found.check()
        return found

    def check(self) -> None:
        """SpecError unless the description holds with the default values of its variables."""

    def data(self) -> dict[str, Any]:
        """The description as plain data, which `parse` reads back."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def save(self, path: str | Path) -> None:
        """Write the description as YAML; a partial file is never left behind."""
        write_data(path, self.data())

    @property
    def file(self) -> str | None:
        """The file that it was read from."""
        return self._file

    @property
    def known_names(self) -> frozenset[str]:
        """The variables that can be set from outside."""
        variables: Mapping[str, Expression] = getattr(self, "variables", {})
        return frozenset(variables)
