"""Known answers, measured and analysed by the benchmark's own code: what it says of them shows how far to trust it."""
