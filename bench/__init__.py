"""The benchmark: plan, run, records, analysis, render. Data goes one way."""
