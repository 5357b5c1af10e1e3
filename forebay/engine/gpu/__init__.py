"""The engine's own way through a GPU: fused kernels, paged attention, captured decode steps."""
