"""How fast the mapper is, in CPU time of one core: problems that other mappers take seconds to minutes for."""

from __future__ import annotations

import resource
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from einsum import Cascade
from mappings.search import find
from tests.mappings.test_search import ATTENTION, evaluator, two_levels

pytestmark = pytest.mark.benchmark(group="mapper", timer=time.process_time)

BUFFERS = (64, 256, 1024, 4096, 8192, 16384, 32768, 65536)
SMALL = {"P": 256, "M": 256, "E": 64, "F": 64}
GPT3 = {"B": 1, "H": 32, "P": 2048, "M": 2048, "E": 128, "F": 128}
MEBIBYTE = 1024


def test_least_traffic_of_attention_at_eight_buffer_sizes(benchmark: BenchmarkFixture) -> None:
    architectures = [two_levels(words) for words in BUFFERS]

    def search() -> list[bool]:
        return [find(ATTENTION, machine, None, "dram", SMALL).exact for machine in architectures]

    assert all(benchmark.pedantic(search, rounds=3, warmup_rounds=1))
    assert benchmark.stats.stats.min < 1.0


@pytest.mark.parametrize("architecture", ["flat-cloud", "fusemax"])
def test_least_traffic_of_softmax_attention_of_bert(benchmark: BenchmarkFixture, architecture: str) -> None:
    def search() -> bool:
        return find("attention-3pass", architecture, "bert-base", "dram", {"L": 1024}).exact

    assert benchmark.pedantic(search, rounds=3)
    assert benchmark.stats.stats.min < 2.0


def test_gradients_of_bert_on_three_levels(benchmark: BenchmarkFixture) -> None:
    """Seven Einsums, many cuts: the largest space of the library's attentions."""
    evaluate = evaluator("attention-backward", "tpu-v4i", "bert-base", {"L": 1024})

    def search() -> float:
        return find("attention-backward", "tpu-v4i", "bert-base", "edp", {"L": 1024}, evaluate=evaluate).gap

    assert benchmark.pedantic(search, rounds=1) == pytest.approx(1.0)
    assert benchmark.stats.stats.min < 30.0


def test_causal_attention_core_of_gpt3(benchmark: BenchmarkFixture) -> None:
    cascade = Cascade.load("attention-1pass").with_condition("m <= p")
    evaluate = evaluator(cascade, "tpu-v4i", None, GPT3)

    def search() -> float:
        return find(cascade, "tpu-v4i", None, "edp", GPT3, evaluate=evaluate).gap

    assert benchmark.pedantic(search, rounds=1) == pytest.approx(1.0)
    assert benchmark.stats.stats.min < 10.0


@pytest.mark.parametrize("cascade", ["attention-unstable", "attention-3pass", "attention-1pass"])
@pytest.mark.parametrize("objective", ["dram", "edp"])
def test_attention_core_of_gpt3_on_three_levels(benchmark: BenchmarkFixture, cascade: str, objective: str) -> None:
    evaluate = evaluator(cascade, "tpu-v4i", None, GPT3)

    def search() -> float:
        return find(cascade, "tpu-v4i", None, objective, GPT3, evaluate=evaluate).gap

    assert benchmark.pedantic(search, rounds=1) == pytest.approx(1.0)
    assert benchmark.stats.stats.min < 10.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1024 * MEBIBYTE
