"""A case reads from text as CSV and YAML give it, and refuses what no kernel could mean."""

from __future__ import annotations

import pytest

from einsum.errors import SpecError
from kernels.case import Case


def test_keys_default_to_the_queries() -> None:
    case = Case.from_fields({"kernel": "flash_attention", "heads": 8, "q_len": 100, "head_dim": 64})
    assert (case.kv_heads, case.kv_len, case.group) == (8, 100, 1)


def test_text_becomes_numbers_and_truth() -> None:
    case = Case.from_fields({"kernel": "copy", "q_len": "1024.0", "causal": "True", "window": "", "head_dim": " 2 "})
    assert (case.q_len, case.causal, case.window, case.head_dim) == (1024, True, 0, 2)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"kernel": "flash_atention"}, "kernel: unknown kernel 'flash_atention' (did you mean 'flash_attention'?)"),
        ({"kernel": ""}, "kernel: expected the name of a kernel, found nothing"),
        ({"kernel": "copy", "dtype": "fp61"}, "dtype: unknown dtype 'fp61'"),
        ({"kernel": "copy", "q_len": "many"}, "q_len: expected a whole number, found 'many'"),
        ({"kernel": "copy", "q_len": "nan"}, "q_len: expected a whole number, found 'nan'"),
        ({"kernel": "copy", "q_len": "1e400"}, "q_len: expected a whole number, found '1e400'"),
        ({"kernel": "copy", "q_len": 1.5}, "q_len: expected a whole number, found '1.5'"),
        ({"kernel": "copy", "q_len": 0}, "q_len: expected a number of at least 1, found 0"),
        ({"kernel": "copy", "window": -1}, "window: expected a number of at least 0, found -1"),
        ({"kernel": "copy", "causal": "maybe"}, "causal: expected true or false, found 'maybe'"),
        ({"kernel": "copy", "heads": 6, "kv_heads": 4}, "kv_heads: 6 heads cannot share 4 K/V heads evenly"),
        ({"kernel": "copy", "block": 3}, "block: unknown field 'block'"),
    ],
)
def test_mistakes_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Case.from_fields(fields)
    assert str(caught.value).startswith(message)
