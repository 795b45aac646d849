"""Facts of a machine as people write them: no raw rates, no digits that say nothing."""

from __future__ import annotations

from bench.render.sections.environment import flatten


def test_rates_and_sizes_have_units() -> None:
    machine = {
        "memory_bytes": 3 * 2**30,
        "roof": {"float32": {"roof_flops_per_s": 301748489208.63306, "roof_bytes_per_s:1048576": 37113582841.7424}},
        "took_s": 0.30000000000000004,
        "flops_per_s": None,
    }
    assert dict(flatten(machine)) == {
        "memory": "3.00 GiB",
        "roof float32 roof flops": "302 GFLOP/s",
        "roof float32 roof bytes, of 1.00 MiB": "37.1 GB/s",
        "took s": "0.3",
        "flops": "\N{EN DASH}",
    }
