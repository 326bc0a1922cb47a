"""Triton kernels of attention and its parts, and the means to measure them on a GPU.

Torch and Triton are imported only by what runs kernels, never by `import kernels` itself.
"""
