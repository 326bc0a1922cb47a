"""The Triton kernels, one file per family. Import a family through `kernels.families.family(name)`."""
