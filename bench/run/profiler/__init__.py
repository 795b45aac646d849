"""Where the time and the memory of one cell go: regions, kernels, a trace. Names are in ``bench.records.region``."""
