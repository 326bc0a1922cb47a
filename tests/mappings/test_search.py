"""The mapper: least traffic equals brute force, and what it finds runs with values in a buffer of that size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from architectures import Architecture
from einsum import Cascade
from einsum.errors import SpecError
from einsum.interpreter import run
from mappings import Mapping as Plan
from mappings.candidates import Candidates
from mappings.mapspace import Problem
from mappings.search import Cost, Found, environment, find
from simulator.simulate import simulate
from tests.mappings.brute_force import Fused, Outside, Part, least_words
from tests.mappings.executor import Executor

MATMUL = Cascade.load("matmul")
ATTENTION = Cascade.parse(
    """
    cascade: three-einsums
    ranks: {p: P, m: M, e: E, f: F}
    inputs: {Q: [p, e], K: [m, e], V: [m, f]}
    outputs: [AV]
    einsums: ["QK[m,p] = Q[p,e] * K[m,e]", "SN[m,p] = exp(QK[m,p])", "AV[p,f] = SN[m,p] * V[m,f]"]
    """
)
SOFTMAX = Cascade.parse(
    """
    cascade: softmax-attention
    ranks: {p: P, m: M, e: E, f: F}
    inputs: {Q: [p, e], K: [m, e], V: [m, f]}
    outputs: [AV]
    einsums:
      - QK[m,p] = Q[p,e] * K[m,e]
      - GM[p] = max(m) QK[m,p]
      - SN[m,p] = exp(QK[m,p] - GM[p])
      - SD[p] = sum(m) SN[m,p]
      - A[m,p] = SN[m,p] / SD[p]
      - AV[p,f] = A[m,p] * V[m,f]
    """
)
NORMALIZATION = Cascade.parse(
    """
    cascade: row-normalization
    ranks: {m: M, p: P}
    inputs: {A: [m, p]}
    outputs: [B]
    einsums: ["MX[m] = max(p) A[m,p]", "B[m,p] = A[m,p] - MX[m]"]
    """
)
GELU = Cascade.parse({"cascade": "gelu", "ranks": {"m": "M"}, "inputs": {"A": ["m"]}, "outputs": ["Z"],
                      "einsums": ["Z[m] = gelu(A[m])"]})  # fmt: skip


def two_levels(words: int, **dims: int) -> Architecture:
    """DRAM and a buffer of so many one-byte words, and one unit that can do everything."""
    ops = {kind: {"cycles": 1, "energy": "1 pJ"} for kind in ("mac", "mul", "add", "sub", "max", "exp", "div")}
    memory = {"access_bits": 8, "read_energy": "1 pJ", "write_energy": "1 pJ"}
    return Architecture.parse(
        {
            "architecture": "two-levels",
            "clock": "1 GHz",
            "word_bits": 8,
            "memories": {"DRAM": {"bandwidth": "1 GB/s", **memory}, "L1": {"capacity": words, **memory}},
            "units": {"array": {"dims": dims or {"lanes": 1}, "ops": ops}},
        }
    )


def evaluator(
    cascade: Any, architecture: Any, workload: Any = None, settings: Mapping[str, Any] | None = None
) -> Callable[[Plan], Cost]:
    def evaluate(plan: Plan) -> Cost:
        result = simulate(cascade, architecture, plan, workload, settings)
        moved = next(iter(result.traffic_bytes.values()))["total"]
        return Cost(float(result.latency_s[0]), float(result.energy_j[0]), float((moved["read"] + moved["write"])[0]))

    return evaluate


def least(cascade: Cascade, words: int, sizes: Mapping[str, int]) -> Found | None:
    """The mapping with the least traffic; None where nothing fits. Its closed form is checked against lowering."""
    try:
        found = find(cascade, two_levels(words), None, "dram", sizes)
    except SpecError as error:
        assert "fits into L1" in str(error)
        return None
    moved = evaluator(cascade, two_levels(words), None, sizes)(found.mapping).dram_bytes
    assert moved == pytest.approx(found.dram_bytes, abs=1e-6)
    assert found.exact
    return found


def words_of(cascade: Cascade, words: int, sizes: Mapping[str, int]) -> float:
    found = least(cascade, words, sizes)
    return inf if found is None else found.dram_bytes


CAPACITIES = 5


def random_sizes(names: str, most: int, seed: int) -> tuple[dict[str, int], list[int]]:
    """Extents, and buffer sizes from hardly enough to more than everything."""
    random = np.random.default_rng(seed)
    sizes = {name.upper(): int(random.integers(1, most + 1)) for name in names}
    return sizes, sorted(int(words) for words in random.integers(3, 3 * most * most // 2, CAPACITIES))


@pytest.mark.parametrize("seed", range(24))
def test_a_product_moves_as_few_words_as_brute_force_finds(seed: int) -> None:
    sizes, capacities = random_sizes("mnk", 5, seed)
    product = Fused((Part(("m", "n", "k"), (Outside(("m", "k")), Outside(("k", "n")), Outside(("m", "n"), True))),))
    best = least_words(product, {name.lower(): size for name, size in sizes.items()}, capacities)
    assert [words_of(MATMUL, words, sizes) for words in capacities] == best


QK = Part(("m", "p", "e"), (Outside(("p", "e")), Outside(("m", "e"))))
AV = Part(("p", "f", "m"), (Outside(("m", "f")), Outside(("p", "f"), True)))
MP = ("m", "p")
READ, WRITTEN = Outside(MP), Outside(MP, True)
RUNS = {
    (0, 1): Fused((Part(QK.ranks, (*QK.outside, WRITTEN)),)),
    (1, 2): Fused((Part(MP, (READ, WRITTEN)),)),
    (2, 3): Fused((Part(AV.ranks, (READ, *AV.outside)),)),
    (0, 2): Fused((QK, Part(MP, (WRITTEN,))), MP, (MP,)),
    (1, 3): Fused((Part(MP, (READ,)), AV), MP, (MP,)),
    (0, 3): Fused((QK, Part(MP, ()), AV), MP, (MP,)),
}
"""Runs of the three Einsums; scores and their exponentials overwrite each other."""
CUTS = ([(0, 3)], [(0, 1), (1, 3)], [(0, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)])


@pytest.mark.parametrize("seed", range(24))
def test_attention_moves_as_few_words_as_brute_force_finds(seed: int) -> None:
    sizes, capacities = random_sizes("pmef", 4, seed)
    extents = {name.lower(): size for name, size in sizes.items()}
    words = {span: least_words(fused, extents, capacities) for span, fused in RUNS.items()}
    best = [min(sum(words[span][place] for span in cut) for cut in CUTS) for place in range(len(capacities))]
    assert [words_of(ATTENTION, capacity, sizes) for capacity in capacities] == best


@pytest.mark.parametrize("seed", range(6))
def test_row_normalization_moves_as_few_words_as_brute_force_finds(seed: int) -> None:
    sizes, capacities = random_sizes("mp", 6, seed)
    extents = {name.lower(): size for name, size in sizes.items()}
    fused = Fused((Part(("m", "p"), ()), Part(("m", "p"), (WRITTEN,))), ("m",), (("m",),), (("m", "p"),))
    whole = least_words(fused, extents, capacities)
    maximum = least_words(Fused((Part(MP, (READ, Outside(("m",), True))),)), extents, capacities)
    rest = least_words(Fused((Part(MP, (READ, Outside(("m",)), WRITTEN)),)), extents, capacities)
    best = [min(one, two + three) for one, two, three in zip(whole, maximum, rest, strict=True)]
    assert [words_of(NORMALIZATION, capacity, sizes) for capacity in capacities] == best


def test_row_normalization_reads_its_rows_twice_when_they_do_not_fit() -> None:
    """At most 16 words of a row survive from the maximum to the difference: 2 x 256 x 256 + 256 x (256 - 16)."""
    found = least(NORMALIZATION, 16, {"M": 256, "P": 256})
    assert found is not None
    assert found.dram_bytes >= 192_512
    assert found.dram_bytes == 3 * 256 * 256


@pytest.mark.parametrize("cascade", [MATMUL, ATTENTION, SOFTMAX, NORMALIZATION], ids=lambda cascade: cascade.name)
@pytest.mark.parametrize("seed", range(6))
def test_what_is_found_runs_with_values_in_its_buffer(cascade: Cascade, seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = {name: int(random.integers(2, 6)) for name in cascade.parameters}
    extents = cascade.extents(sizes)
    inputs = {t.name: random.normal(size=cascade.shape(t.name, extents)) for t in cascade.inputs}
    expected = run(cascade, inputs, sizes)
    ran = 0
    for words in (6, 9, 14, 22, 40, 200):
        found = least(cascade, words, sizes)
        if found is None:
            continue
        ran += 1
        done = Executor(cascade, list(found.mapping.data["nest"]), sizes, inputs, {"L1": words})
        for tensor in cascade.outputs:
            values = np.array([done.slow[tensor.name, at] for at in np.ndindex(expected[tensor.name].shape)])
            np.testing.assert_allclose(values, expected[tensor.name].ravel(), rtol=1e-12)
        assert done.moved == found.dram_bytes
    assert ran >= 3


def test_a_found_mapping_saves_and_loads_to_the_same_result(tmp_path: Path) -> None:
    settings = {"L": 1024}
    found = find(
        "attention-3pass", "flat-cloud", "bert-base", "edp", settings,
        evaluate=evaluator("attention-3pass", "flat-cloud", "bert-base", settings),
    )  # fmt: skip
    found.mapping.save(tmp_path / "found.yaml")
    first = simulate(mapping=found.mapping, workload="bert-base", settings=settings)
    again = simulate(mapping=tmp_path / "found.yaml", workload="bert-base", settings=settings)
    assert first.to_dict() == again.to_dict()


@pytest.mark.parametrize("objective", ["dram", "edp"])
def test_flash_attention_2_is_rediscovered(objective: Any) -> None:
    """Queries and their running state stay; keys and values come by once for each block of queries."""
    settings = {"B": 1, "H": 2, "P": 4096, "M": 4096, "E": 64, "F": 64, "W": 64, "buffer": 128 * 1024}
    evaluate = evaluator("attention-1pass", "fusemax", None, settings)
    found = find("attention-1pass", "fusemax", None, objective, settings, evaluate=evaluate)
    holds = dict(held_under(found.mapping.data["nest"], ()))
    assert [rank for rank in holds["Q"] if rank in ("p", "m1")] == ["p"]
    assert all("m1" not in holds[tensor] for tensor in ("RM", "RD", "RNV"))
    assert all(holds[tensor].index("p") < holds[tensor].index("m1") for tensor in ("K", "V"))


def held_under(nodes: Any, loops: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each held tensor, and the loops around its tile."""
    for node in nodes if isinstance(nodes, list) else [nodes]:
        loops += tuple(node.get("for", ()))
        for entries in node.get("keep", {}).values():
            yield from ((tensor, loops) for tensor in entries)
        for child in (*node.get("sequence", ()), *node.get("pipeline", ())):
            yield from held_under(child, loops)


EVERY_ROW = [(name, 4**k) for name in ("bert-base", "transformer-xl", "t5-small", "xlm") for k in range(5, 11)]
"""The rows of mappings/library/flat-rows.csv."""


def as_fast_as_flat(workload: str, length: int) -> None:
    settings = {"L": length}
    flat = float(simulate(mapping="flat", workload=workload, settings=settings).latency_s[0])
    evaluate = evaluator("attention-3pass", "flat-cloud", workload, settings)
    found = find("attention-3pass", "flat-cloud", workload, "latency", settings, evaluate=evaluate, hidden_fill=True)
    assert found.cost is not None
    assert found.cost.latency_s <= flat * (1 + 1e-9)


@pytest.mark.parametrize(("workload", "length"), [("bert-base", 65536), ("xlm", 262144)])
def test_as_fast_as_flats_own_search(workload: str, length: int) -> None:
    as_fast_as_flat(workload, length)


@pytest.mark.slow
@pytest.mark.parametrize(("workload", "length"), EVERY_ROW)
def test_as_fast_as_every_row_of_flat(workload: str, length: int) -> None:
    as_fast_as_flat(workload, length)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "speed"}, "unknown objective 'speed'"),
        ({"objective": "latency"}, "the objective latency needs an evaluator of mappings"),
        ({"settings": {"M": 4, "N": 4}}, "nothing gives the size K of cascade 'matmul'"),
        ({"settings": {"M": 4, "N": 4, "K": 4, "KK": 1}}, "unknown variable 'KK'"),
        ({"cascade": GELU, "settings": {"M": 4}}, "no unit of 'two-levels' can run Z, which needs gelu"),
    ],
)
def test_what_the_mapper_refuses(arguments: dict[str, Any], message: str) -> None:
    given = {"cascade": MATMUL, "objective": "dram", "settings": {"M": 4, "N": 4, "K": 4}, **arguments}
    with pytest.raises(SpecError, match=message):
        find(given["cascade"], two_levels(64), None, given["objective"], given["settings"])


@pytest.mark.parametrize(
    ("cascade", "architecture"),
    [
        ("attention-3pass", "flat-cloud"),
        ("attention-1pass", "fusemax"),
        ("attention-unstable", "tpu-v4i"),
        ("matmul", "tpu-v4i"),
    ],
)
def test_the_closed_form_counts_what_lowering_counts(cascade: str, architecture: str) -> None:
    """Ragged sizes, all arrangements: a sample of the candidates moves exactly the bytes that the search counted."""
    random = np.random.default_rng(0)
    algorithm, machine = Cascade.load(cascade), Architecture.load(architecture)
    small = {"buffer": 96 * 1024, "W": 32} if architecture != "tpu-v4i" else {"cmem": 512 * 1024, "vmem": 64 * 1024}
    sizes = {name: int(random.integers(50, 700)) for name in algorithm.parameters} | {"B": 2, "H": 3}
    sizes = {name: size for name, size in sizes.items() if name in algorithm.parameters} | small
    chunks = {"M0": 48} if cascade == "attention-1pass" else {}
    env = environment(algorithm, machine.evaluate(small), None, {**sizes, **chunks})
    found = Candidates(Problem(algorithm, machine.evaluate(small), env), "serial", chunks).arranged()
    assert found
    for place in random.permutation(len(found))[:12]:
        plan = Plan.parse({"mapping": "sample", "variables": dict(chunks), "nest": found[place].write()})
        moved = evaluator(algorithm, machine, None, sizes)(plan).dram_bytes
        assert moved == pytest.approx(found[place].moved_bytes, rel=1e-9), found[place].description
