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
    needed = list(zip(demands_s, aside, beside, taken, behind, strict=True))
    busy = [sum(parts) for parts in zip(demands_s, aside, beside, forked, strict=True)]
    away = [part + rest for part, rest in zip(taken, behind, strict=True)]
    total, queue, passing = 0.0, [0.0] * stations, [0.0] * stations
    for count in range(1, customers + 1):
        slower = [1 + waiting + others for waiting, others in zip(queue, passing, strict=True)]
        chain = left = past = met = left_met = 0.0
        for (here, then, later, part, rest), waiting, slow in zip(needed, queue, slower, strict=True):
            chain += here * slow
            left += then * slow
            past += later * slow
            met += part * waiting
            left_met += rest * waiting
        joined = sum(max(part * slow for part, slow in zip(fork, slower, strict=True)) for fork in forks_s)
        total = latency_s + (chain + joined + met) + max(left + left_met, beside_latency_s + past)
        if total == 0:
            return 0.0
        passing = [part * (1 + waiting) * count / total for part, waiting in zip(away, queue, strict=True)]
        queue = [work * slow * count / total for work, slow in zip(busy, slower, strict=True)]
    return total
