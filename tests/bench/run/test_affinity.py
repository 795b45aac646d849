"""Processors for threads, by hand."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.run.affinity import choose, core_of


def test_one_thread_a_core_before_siblings() -> None:
    cores = {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5", 7: "3,7"}  # 7 alone: its sibling is not ours to use
    assert choose(2, cores, cores.__getitem__) == [0, 1]
    assert choose(3, cores, cores.__getitem__) == [0, 1, 7]
    assert choose(4, cores, cores.__getitem__) == [0, 1, 7, 4]


def test_what_the_system_does_not_tell_counts_as_a_core() -> None:
    assert core_of(10**6) == "1000000"
    assert choose(2, {9, 3, 5}, core_of) == [3, 5]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such call here")
def test_a_process_keeps_to_as_many_processors_as_it_has_threads() -> None:
    program = "import os; from bench.run.affinity import pin; pin(1); print(len(os.sched_getaffinity(0)))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "1\n"
    usable = len(os.sched_getaffinity(0))
    program = program.replace("pin(1)", f"pin({usable + 1})")
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == f"{usable}\n"
