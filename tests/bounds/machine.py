"""A two-level memory, word by word: every schedule here moves words by `load` and `store` and never holds too many."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

Address = Hashable


class Machine:
    """Slow memory without limit, fast memory of `capacity` words; both start as given and empty."""

    def __init__(self, slow: Mapping[Address, float], capacity: float = float("inf")) -> None:
        self.slow, self.capacity = dict(slow), capacity
        self.fast: dict[Address, Any] = {}
        self.loads = self.stores = self.peak = 0

    @property
    def words(self) -> int:
        return self.loads + self.stores

    def load(self, *addresses: Address) -> None:
        for address in addresses:
            assert address not in self.fast, f"{address} is loaded twice"
            self.loads += 1
            self._place(address, self.slow[address])

    def store(self, *addresses: Address) -> None:
        for address in addresses:
            self.stores += 1
            self.slow[address] = self.fast[address]

    def drop(self, *addresses: Address) -> None:
        for address in addresses:
            del self.fast[address]

    def __getitem__(self, address: Address) -> Any:
        return self.fast[address]

    def __setitem__(self, address: Address, value: Any) -> None:
        self._place(address, value)

    def _place(self, address: Address, value: Any) -> None:
        self.fast[address] = value
        self.peak = max(self.peak, len(self.fast))
        assert self.peak <= self.capacity, f"{self.peak} words do not fit in {self.capacity}"
