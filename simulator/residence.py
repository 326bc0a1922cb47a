"""Mean value analysis of a closed queueing network, whose customers may do several things at a time."""

from __future__ import annotations

from collections.abc import Sequence


def residence_s(
    demands_s: Sequence[float],
    latency_s: float,
    customers: int,
    aside_s: Sequence[float] = (),
    beside_s: Sequence[float] = (),
    beside_latency_s: float = 0.0,
    forks_s: Sequence[Sequence[float]] = (),
    taken_s: Sequence[float] = (),
    behind_s: Sequence[float] = (),
) -> float:
    """Time of one round of a closed network of queues with a delay, by mean value analysis.

    A customer may leave work at stations (`aside_s`) and go on beside it (`beside_s`); the round ends with the longer.
    It may also ask several stations at once (`forks_s`), and wait for the last. What its work elsewhere takes of a
    station meanwhile (`taken_s`, and `behind_s` by what it leaves) delays others there, and is delayed by their work,
    but not by what theirs takes meanwhile.
    """
    stations = len(demands_s)
    aside, beside, taken, behind = (list(v) or [0.0] * stations for v in (aside_s, beside_s, taken_s, behind_s))
    forked = [sum(fork[place] for fork in forks_s) for place in range(stations)]
    total, queue, passing = 0.0, [0.0] * stations, [0.0] * stations
    for count in range(1, customers + 1):
        slower = [1 + waiting + others for waiting, others in zip(queue, passing, strict=True)]
        chain, left, past = (
            sum(demand * slow for demand, slow in zip(path, slower, strict=True)) for path in (demands_s, aside, beside)
        )
        chain += sum(max(part * slow for part, slow in zip(fork, slower, strict=True)) for fork in forks_s)
        chain += sum(part * waiting for part, waiting in zip(taken, queue, strict=True))
        left += sum(part * waiting for part, waiting in zip(behind, queue, strict=True))
        total = latency_s + chain + max(left, beside_latency_s + past)
        if total == 0:
            return 0.0
        meanwhile = zip(taken, behind, queue, strict=True)
        passing = [(part + rest) * (1 + waiting) * count / total for part, rest, waiting in meanwhile]
        queue = [
            (here + then + later + part) * slow * count / total
            for here, then, later, part, slow in zip(demands_s, aside, beside, forked, slower, strict=True)
        ]
    return total
