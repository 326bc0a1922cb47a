"""`import einsight as es` costs nothing and gives every public name."""

from __future__ import annotations

import subprocess
import sys

import pytest

import einsight as es


@pytest.mark.parametrize("name", es.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(es, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = es.simulat  # type: ignore[attr-defined]


def test_importing_loads_nothing_else() -> None:
    program = "import sys, einsight; print('numpy' in sys.modules, 'simulate' in dir(einsight))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
