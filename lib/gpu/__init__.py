"""A training step on a GPU: captured as a CUDA graph, with kernels of our own; switched off where they do not work."""
