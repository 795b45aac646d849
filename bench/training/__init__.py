"""Training a two-tower model on a data set and ranking the whole catalogue with it."""
