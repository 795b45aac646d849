"""The open loop against what queueing theory and Lindley's recursion say, on a clock that only moves when told to."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from bench.run.load import closed_loop, highest_rate, open_loop, poisson, recorded


class Planted:
    """A clock, and a server whose answers take planted times on it."""

    def __init__(self, seconds: np.ndarray) -> None:
        self.time, self.seconds, self.seen = 5.0, seconds, []  # type: ignore[var-annotated]

    def now(self) -> float:
        return self.time

    def wait(self, until: float) -> None:
        self.time = max(self.time, until)

    def answer(self, first: int, stop: int) -> list[float]:
        self.seen.append((first, stop))
        self.time += self.seconds[first]
        return [self.seconds[first]]


def test_constant_service_under_poisson_arrivals_waits_as_theory_says() -> None:
    """M/D/1 (Pollaczek and Khinchine): the mean wait is rho s / (2 (1 - rho))."""
    service, rho, n = 0.002, 0.6, 300_000
    server = Planted(np.full(n, service))
    served = open_loop(poisson(rho / service, n, np.random.default_rng(0)), server.answer, server, 1)
    assert served.queue.mean() == pytest.approx(rho * service / (2 * (1 - rho)), rel=0.02)
    assert np.allclose(served.total, served.queue + service)
    assert served.reached


def test_waits_are_those_of_lindleys_recursion() -> None:
    random = np.random.default_rng(1)
    arrivals, seconds = poisson(100, 2000, random), random.exponential(0.008, 2000)
    server = Planted(seconds)
    served = open_loop(arrivals, server.answer, server, 1)
    wait = [0.0]
    for gap, service in zip(np.diff(arrivals), seconds, strict=False):
        wait.append(max(0.0, wait[-1] + service - gap))
    assert np.allclose(served.queue, wait, atol=1e-9)
    assert np.array_equal(served.parts[0], seconds)
    waited = np.array(wait) > 1e-9
    assert np.isnan(served.late[waited]).all()
    assert np.nanmax(served.late) < 1e-9


def test_a_stall_is_in_the_tail_of_an_open_loop_and_hidden_from_a_closed_one() -> None:
    """200 ms once in 2 s at 200 requests a second: a tenth of them wait, up to 200 ms."""
    seconds = np.full(4000, 0.0012)
    seconds[200::400] = 0.2
    server = Planted(seconds)
    total = open_loop(np.arange(4000) / 200, server.answer, server, 1).total
    assert np.quantile(total, 0.5) == pytest.approx(0.0012)
    assert 0.03 < np.quantile(total, 0.95) < 0.15
    assert 0.17 < np.quantile(total, 0.99) <= 0.2
    assert np.quantile(closed_loop(4000, server.answer, server, 1).total, 0.99) == pytest.approx(0.0012)


def test_a_rate_that_cannot_be_reached_is_told() -> None:
    server = Planted(np.full(3000, 0.01))
    served = open_loop(poisson(200, 3000, np.random.default_rng(0)), server.answer, server, 1)
    assert served.rate_per_s == pytest.approx(100, rel=0.01)
    assert not served.reached
    assert open_loop(poisson(50, 3000, np.random.default_rng(0)), server.answer, server, 1).reached


def test_a_hopeless_rate_is_given_up() -> None:
    server = Planted(np.full(3000, 0.01))
    served = open_loop(np.arange(3000) / 1000, server.answer, server, 1, most_queue_s=0.5)
    assert len(served.total) == len(served.late) == served.parts.shape[1] == 57  # the 57th has waited for 56 * 9 ms
    assert not served.reached
    assert served.rate_per_s == pytest.approx(100)


def test_batches_wait_for_others_as_long_as_they_may() -> None:
    arrivals = np.array([0.0, 0.001, 0.002, 0.003, 0.5, 0.9])
    server = Planted(np.full(6, 0.01))
    served = open_loop(arrivals, server.answer, server, 1, max_batch=3, max_wait_s=0.05)
    assert server.seen == [(0, 3), (3, 4), (4, 5), (5, 6)]  # full at the third; alone after the wait
    assert np.allclose(served.queue, [0.002, 0.001, 0.0, 0.05, 0.05, 0.0])  # nothing comes behind the last one
    assert served.batch.tolist() == [3, 3, 3, 1, 1, 1]


def test_arrivals_come_at_their_rate() -> None:
    times = np.array([40, 10, 10, 20])
    assert np.allclose(recorded(times, 2.0), recorded(times, 1.0) / 2)
    found = recorded(times, 4.0)
    assert np.allclose(found, [0, 0, 1 / 3, 1])
    assert poisson(50, 100_000, np.random.default_rng(0))[-1] == pytest.approx(2000, rel=0.02)


@pytest.mark.parametrize("limit", [3.0, 95.0, 700.0])
def test_the_highest_rate_is_bracketed(limit: float) -> None:
    low, high = highest_rate(lambda rate: rate <= limit, 100.0)
    assert low <= limit < high
    assert high / max(low, 1e-9) < 1.6


def test_bounds_that_none_or_all_rates_hold() -> None:
    assert highest_rate(lambda rate: False, 100.0)[0] == 0
    assert highest_rate(lambda rate: True, 100.0)[1] == np.inf


def test_memory_does_not_grow_with_requests() -> None:
    """What is kept of a request is six numbers; nothing else stays of half a million of them."""
    n = 500_000
    server = Planted(np.full(n, 1e-4))
    arrivals = np.arange(n) / 5000.0
    tracemalloc.start()
    try:
        served = open_loop(arrivals, lambda first, stop: [1e-4], server, 1)
        kept = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(served.total) == n
    assert kept < 8 * 8 * n
