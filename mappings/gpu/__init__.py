"""Kernels of GPUs: their description in YAML, what their thread blocks share in the L2, and their tile programs."""
