"""The machine: chips, cells, tiles, physics, kernels and costs. It knows nothing of graphs or programs."""
