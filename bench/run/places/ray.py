"""A Ray cluster: each node a berth, each request a task on its node. Ray's own retries are off."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

from bench.run.attempt import failed
from bench.run.environment import MachineError
from bench.run.places import Berth, Place
from bench.run.places.remote import call
from bench.run.provenance import utc_now

STORE_BYTES = 100_000_000  # of a cluster of our own: replies are small
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ray(Place):
    """The running cluster, that at an address, or one on this machine for as long as this lasts.

    Args:
        where: empty for the running one, ``local`` to start one, or an address.

    Raises:
        MachineError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, where: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what is measured here is nobody else's business
        try:
            import ray
        except ImportError as error:
            raise MachineError(f"Ray cannot be used ({error}); install it: pip install 'ray>=2.50'") from None
        self._ray = ray
        local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        handlers = {number: signal.getsignal(number) for number in HANDLED}
        try:
            ray.init(
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                **(local if where == "local" else {"address": where or "auto"}),
            )
        except Exception as error:
            why = " ".join(str(error).split())[:200]
            raise MachineError(
                f"no Ray cluster ({why}); `ray start --head` starts one, --on ray:local its own"
            ) from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self._task = ray.remote(max_retries=0)(call)
        self._calls: dict[Any, tuple[int, dict[str, Any]]] = {}
        self._n_calls = 0
        self.berths = [
            Berth(node["NodeID"], int(own["CPU"]), int(own.get("GPU", 0)), max(int(own["CPU"]), int(own.get("GPU", 0))))
            for node in ray.nodes() if node["Alive"] and (own := node["Resources"]).get("CPU", 0) >= 1
        ]  # fmt: skip

    def submit(self, berth: Berth, what: str, request: dict[str, Any], n_cpus: int) -> int:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = NodeAffinitySchedulingStrategy(berth.key, soft=False)
        needs_gpu = berth.gpus and (what == "probe" or request.get("free_bytes") is not None)
        needs = {"num_cpus": n_cpus, "num_gpus": 1 if needs_gpu else 0}
        self._n_calls += 1
        reference = self._task.options(scheduling_strategy=node, **needs).remote(what, request)
        self._calls[reference] = self._n_calls, request
        return self._n_calls

    def wait(self, timeout_s: float) -> list[tuple[int, dict[str, Any] | str]]:
        ended, _ = self._ray.wait([*self._calls], timeout=timeout_s)
        return [(number, self._reply(each, request)) for each in ended for number, request in [self._calls.pop(each)]]

    def _reply(self, reference: Any, request: dict[str, Any]) -> dict[str, Any] | str:
        try:
            return dict(self._ray.get(reference))
        except self._ray.exceptions.OutOfMemoryError:  # Ray ends a worker before the kernel would
            answer = failed("oom", "killed by Ray for want of memory", limit="memory")
            return {"answers": [{**answer, "env": {}, "started_at": utc_now(), "seconds": 0.0}], "files": {}}
        except self._ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [""]
            return f"{type(error).__name__}: {lines[-1] if 'Traceback' in str(error) else lines[0]}"[:300]

    def renewed(self, berth: Berth) -> Berth | None:
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        return berth if berth.key in alive else None

    def close(self) -> None:
        for reference in self._calls:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()
