"""One pool of threads for torch and for our compiled kernels.

Two pools on the same cores hinder each other: the idle threads of one spin for milliseconds while the other works. So
our kernels run on the OpenMP threads that torch has already started, and torch's setting is the only one.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


def set_threads(n_threads: int) -> None:
    """Let torch and our kernels use ``n_threads`` threads from now on.

    Raises:
        ValueError: less than one thread.

    Examples:
        >>> from ftmamba import get_threads, set_threads
        >>> before = get_threads()
        >>> set_threads(1)
        >>> get_threads()
        1
        >>> set_threads(before)
    """
    if n_threads < 1:
        raise ValueError(f"the number of threads must be positive, got {n_threads}")
    torch.set_num_threads(n_threads)


def get_threads() -> int:
    """How many threads torch and our kernels use. A compiled module takes it as a constant.

    Examples:
        >>> from ftmamba import get_threads
        >>> get_threads() >= 1
        True
    """
    return torch.get_num_threads()


# The mark that `torch.compiler.assume_constant_result` sets; calling that would import the compiler, which takes 1 s.
get_threads._dynamo_marked_constant = True  # type: ignore[attr-defined]


class Kernel:
    """A compiled function that all threads enter at once, each taking work until none is left.

    Args:
        compile_entry: gives the address of a C function ``void (int64_t *arguments)``; called at first use.
        fields: names of the arguments, in the order the function expects them. It finds two more numbers behind
            them, both zero: a counter of the threads that came, and a counter of the work taken.
    """

    def __init__(self, compile_entry: Callable[[], int], fields: Sequence[str]) -> None:
        self._entry = functools.cache(compile_entry)
        self._fields, self._names = tuple(fields), frozenset(fields)
        self._block = ctypes.c_int64 * (len(fields) + 2)

    def __call__(self, *, n_threads: int, **arguments: Tensor | int | None) -> None:
        """Run to the end. A tensor stands for its address, None for no address. Without threads there is no work."""
        if arguments.keys() != self._names:
            raise TypeError(f"kernel arguments do not match: {sorted(arguments.keys() ^ self._names)}")
        values = map(arguments.__getitem__, self._fields)
        numbers = [v if type(v) is int else v.data_ptr() if isinstance(v, Tensor) else v or 0 for v in values]
        block = self._block(*numbers, 0, 0)
        if n_threads > 0:  # to torch's pool, 0 means as many as there are
            self.enter(ctypes.addressof(block), n_threads)

    def enter(self, block: int, n_threads: int) -> None:
        """Run on arguments that stand, with the two counters, at an address already."""
        _enter(self._entry(), block, n_threads)


def _enter(entry: int, block: int, n_threads: int) -> None:
    if n_threads == 1:
        _function(entry)(block)
    elif (parallel := _torch_pool()) is not None:
        parallel(entry, block, n_threads, 0)
    else:
        with ThreadPoolExecutor(n_threads) as pool:
            for future in [pool.submit(_function(entry), block) for _ in range(n_threads)]:
                future.result()


_function = functools.cache(ctypes.CFUNCTYPE(None, ctypes.c_void_p))


@functools.cache
def _torch_pool() -> Callable[[int, int, int, int], None] | None:
    """The call that starts a parallel region on torch's OpenMP threads; None where torch has none that we can reach.

    torch loads its OpenMP library into the process' global scope; GNU's exports this call and LLVM's and Intel's
    export it too, for programs built by gcc.
    """
    try:
        parallel = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel
