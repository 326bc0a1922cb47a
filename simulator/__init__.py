"""What a tile program costs: the analytic and the event evaluator, results and timelines."""

from simulator.result import PhaseResult, Result

__all__ = ["PhaseResult", "Result"]
