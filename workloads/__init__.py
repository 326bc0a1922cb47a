"""At what size algorithms run: the shapes of models; library/*.yaml."""

from workloads.workload import LinearLayer, LinearSize, Workload

__all__ = ["LinearLayer", "LinearSize", "Workload"]
