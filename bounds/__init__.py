"""What is possible: I/O lower bounds with certificates, the best schedules known, and the report that joins them."""

from bounds.command import parse_memory_sizes, run_bounds
from bounds.engine import LABELS, LowerBound, lower_bound
from bounds.measured import Measurement
from bounds.reader import read_problem
from bounds.report import BoundsReport, BoundsRow, OwnSchedule, analyse
from bounds.verify import verify

__all__ = [
    "LABELS",
    "BoundsReport",
    "BoundsRow",
    "LowerBound",
    "Measurement",
    "OwnSchedule",
    "analyse",
    "lower_bound",
    "parse_memory_sizes",
    "read_problem",
    "run_bounds",
    "verify",
]
