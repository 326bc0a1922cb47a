"""At what size algorithms run: the shapes of models, pruning schedules, traces of runs; library/*.yaml."""

from workloads.pruning import PruningSchedule
from workloads.traces import HeadTrace
from workloads.workload import LinearLayer, LinearSize, Workload

__all__ = ["HeadTrace", "LinearLayer", "LinearSize", "PruningSchedule", "Workload"]
