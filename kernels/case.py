"""Case: one kernel at one shape with one tile, the thing that a row of a measurement file describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from einsum.errors import SpecError, nearest

KERNELS = (
    "copy", "matmul", "softmax", "unfused", "flash_attention", "flash_decode", "lean_decode", "linear_attention",
    "block_sparse", "flash_attention_backward",
)  # fmt: skip
WORD_BYTES = {"fp8": 1, "fp16": 2, "bf16": 2, "fp32": 4}


@dataclass(frozen=True)
class Case:
    """What runs: kernel, number format, shape, tile.

    kernel      one of KERNELS
    dtype       format of the inputs; sums are always kept in fp32
    batch, heads, kv_heads, q_len, kv_len, head_dim   the shape of attention; docs/measuring.md says what matmul,
                softmax and copy use them for
    causal      query i sees keys up to i + kv_len - q_len (the last query sees every key)
    window      0 for none, else a query sees the `window` latest keys (causal) or those nearer than `window` (not)
    block_m, block_n   queries and keys of a tile; `block_k` the step of a matmul's reduction; 0 where there is none, or
                where a library chooses
    warps       warps of a thread block
    stages      depth of the pipeline of asynchronous loads
    variant     empty, or a named part or form of the kernel: `qk`, `softmax`, `pv` of `unfused`, or the libraries'
                kernels `mma-sync` and `warp-specialized`
    splits      decode: parts that each head's keys are split into (flash_decode) or thread blocks (lean_decode)
    pattern     block_sparse: the blocks that are kept, see kernels/patterns.py
    """

    kernel: str
    dtype: str = "fp16"
    batch: int = 1
    heads: int = 1
    kv_heads: int = 1
    q_len: int = 1
    kv_len: int = 1
    head_dim: int = 1
    causal: bool = False
    window: int = 0
    block_m: int = 0
    block_n: int = 0
    warps: int = 0
    stages: int = 0
    variant: str = ""
    block_k: int = 0
    splits: int = 0
    pattern: str = ""

    def __post_init__(self) -> None:
        """Refuse what no kernel could mean."""
        if self.kernel not in KERNELS:
            raise SpecError(f"unknown kernel '{self.kernel}'{nearest(self.kernel, KERNELS)}", key="kernel")
        if self.dtype not in WORD_BYTES:
            raise SpecError(f"unknown dtype '{self.dtype}'{nearest(self.dtype, WORD_BYTES)}", key="dtype")
        for name in ("batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim"):
            if getattr(self, name) < 1:
                raise SpecError(f"expected a number of at least 1, found {getattr(self, name)}", key=name)
        for name in ("window", "block_m", "block_n", "block_k", "warps", "stages", "splits"):
            if getattr(self, name) < 0:
                raise SpecError(f"expected a number of at least 0, found {getattr(self, name)}", key=name)
        if self.heads % self.kv_heads:
            raise SpecError(f"{self.heads} heads cannot share {self.kv_heads} K/V heads evenly", key="kv_heads")

    @property
    def word_bytes(self) -> int:
        """Bytes of one input number."""
        return WORD_BYTES[self.dtype]

    @property
    def group(self) -> int:
        """Query heads that share one K/V head."""
        return self.heads // self.kv_heads

    def lacks(self, *names: str) -> str | None:
        """Why a kernel that needs these parts of a tile cannot run, or None."""
        missing = [name for name in names if not getattr(self, name)]
        return f"{self.kernel} needs {', '.join(missing)}" if missing else None

    @classmethod
    def from_fields(cls, given: Mapping[str, object]) -> Case:
        """A case from field values, as a plan or a CSV row gives them; `kv_heads` and `kv_len` default to the query's.

        Raises SpecError, naming the field, for an unknown field, a value of the wrong kind, or an impossible one.
        """
        types = {field.name: field.type for field in fields(cls)}
        for name in given:
            if name not in types:
                raise SpecError(f"unknown field '{name}'{nearest(name, types)}", key=name)
        if not given.get("kernel"):
            raise SpecError("expected the name of a kernel, found nothing", key="kernel")
        values = {name: _convert(name, types[name], value) for name, value in given.items() if value not in (None, "")}
        values.setdefault("kv_heads", values.get("heads", 1))
        values.setdefault("kv_len", values.get("q_len", 1))
        return cls(**values)

    def fields(self) -> dict[str, str | int | bool]:
        """Field values by name, in order of declaration."""
        return dict(vars(self))


def _convert(name: str, kind: object, value: object) -> Any:
    """`value` as the field's type, or SpecError."""
    text = str(value).strip()
    if kind == "str":
        return text
    if kind == "bool":
        truth = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
        if truth is None:
            raise SpecError(f"expected true or false, found '{text}'", key=name)
        return truth
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number != int(number) if abs(number) < 2**53 else True:
        raise SpecError(f"expected a whole number, found '{text}'", key=name)
    return int(number)
