"""Facts about this machine and its libraries, found by one child process so that the parent need not import torch.

Run as ``python -m bench.run.environment DESCRIPTOR`` it is that child. No fact names the host or its user: people
publish them.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from bench.plan.axes import DTYPE_BYTES, ROOF_OF
from bench.plan.plan import Plan
from bench.run.cgroup import cpu_quota
from bench.run.child import guard_child, run_child, send_reply
from ftmamba import mixers
from ftmamba.backends import Backend
from ftmamba.ops import OPS, backends_of

IDENTITY: dict[str, Callable[[Any], Any]] = {  # what has to be the same throughout a run
    "processor": lambda machine: machine["cpu"]["model"],
    "GPUs": lambda machine: [gpu["name"] for gpu in machine["gpus"]],
    "torch": lambda machine: machine["torch"]["version"],
}
PROBE_TIMEOUT_S = 300.0
PACKAGES = ("ftmamba", "torch", "numpy", "numba", "triton", "mamba-ssm", "causal-conv1d", "flash-attn", "mambapy",
            "transformers")  # fmt: skip
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_PROC_BIND", "KMP_AFFINITY")


class MachineError(ValueError):
    """This machine cannot do what was asked; the message is one line for people."""


def probe(
    *, backends: bool = False, roof_device: str = "", dtypes: Sequence[str] = (), threads: int = 0
) -> dict[str, Any]:
    """Facts about this machine, by a child process that imports torch.

    Args:
        backends: also try every backend of every mixer and op, which imports all that is installed.
        roof_device: also measure the best rates of this device; ``auto`` takes the GPU where torch can use one.
        dtypes: of the matrix products among those rates.
        threads: CPU threads that they are measured with; 0 leaves it to torch.

    Returns:
        The facts; ``roof`` holds the rates by dtype where they were asked for.

    Raises:
        MachineError: torch cannot be imported here.
    """
    request = {"backends": backends, "roof_device": roof_device, "dtypes": list(dtypes), "threads": threads}
    outcome = run_child([sys.executable, "-m", "bench.run.environment"], request, timeout_s=PROBE_TIMEOUT_S)
    if outcome.reply is None:
        tail = " ".join(outcome.tail.split())[-300:]
        raise MachineError(f"the probe of this machine gave no answer (exit code {outcome.exit_code}): {tail}")
    if "failed" in outcome.reply:
        raise MachineError(str(outcome.reply["failed"]))
    return outcome.reply


def wanted_of(plan: Plan) -> dict[str, Any]:
    """Arguments of ``probe`` that also ask for the machine's best rates with a plan's dtypes and threads."""
    own = [name for name in plan.get("dtype", ("float32",)) if name in DTYPE_BYTES]
    dtypes = dict.fromkeys([*own, *(ROOF_OF[each] for each in plan.get("precision", ()) if each in ROOF_OF)])
    return {"roof_device": plan.device, "dtypes": [*dtypes], "threads": plan.get("threads", 0)}


def thread_variables() -> dict[str, str]:
    """What this process's environment says about threads."""
    return {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}


def resolve_device(wanted: str, machine: dict[str, Any]) -> str:
    """``cpu`` or ``cuda``; ``auto`` takes the GPU where torch can use one.

    Raises:
        MachineError: CUDA was asked for and is not usable.
    """
    if wanted == "cuda" and not machine["gpus"]:
        build = machine["torch"]["cuda"]
        why = f"torch was built for CUDA {build}, but finds no GPU" if build else "this build of torch has no CUDA"
        why = machine.get("gpu_problem") or why
        raise MachineError(f"device cuda is not usable: {why}")
    if wanted != "auto":
        return wanted
    return "cuda" if machine["gpus"] else "cpu"


def facts() -> dict[str, Any]:
    """What ``probe`` returns, found in this process."""
    import torch

    from ftmamba.threads import get_threads, set_threads

    quota = cpu_quota()
    if quota is not None:  # more threads than it has processors' time for are stopped in the middle of an iteration
        set_threads(max(1, min(get_threads(), int(quota))))
    return {
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": {
            "model": cpu_model(),
            "cores": psutil.cpu_count(logical=False),
            "logical_cores": psutil.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(),
            "quota_cores": quota,
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
        "memory_bytes": psutil.virtual_memory().total,
        **_gpus(),
        "driver": _driver(),
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        },
        "versions": {package: version for package in PACKAGES if (version := installed_version(package))},
        "threads": {
            "torch": torch.get_num_threads(),
            **thread_variables(),
        },
    }


def roofs(device: str, dtypes: Sequence[str], threads: int) -> dict[str, dict[str, Any]]:
    """The machine's best rates, by dtype; see ``bench.run.roof``."""
    import torch

    from bench.run import roof
    from ftmamba.threads import set_threads

    if threads:
        set_threads(threads)
    found = {}
    for dtype in dtypes:
        torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
        found[dtype] = roof.measure(device, getattr(torch, dtype, torch.float32)).values
    return found


def _gpus() -> dict[str, Any]:
    """``gpus``, and where torch cannot use those that there are, ``gpu_problem``, such as an old driver."""
    import torch

    try:
        return {"gpus": [_gpu(index) for index in range(torch.cuda.device_count())]}
    except Exception as error:  # what runs on the CPU still does
        return {"gpus": [], "gpu_problem": " ".join(str(error).split())[:300]}


def compiler_problem() -> str | None:
    """What Triton needs when it first runs and does not find: a C compiler and Python's headers."""
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("gcc", "clang"))), None)
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    missing = [*([] if compiler else ["a C compiler (gcc)"]), *([] if header.exists() else [f"{header} (python3-dev)"])]
    return f"Triton compiles a small C file when it first runs; missing: {', '.join(missing)}" if missing else None


def _gpu(index: int) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": total,
        "free_bytes": free,
    }


def _driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # no driver, which is a fact too
        return None


def cpu_model() -> str:
    """The processor's name, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def backend_states() -> list[dict[str, Any]]:
    """Every backend: on which of this machine's devices it runs, or why on none."""
    import torch

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    owners = {name: mixers.find(name).backends for name in mixers.NAMES}
    named = [*owners.values()]  # an op that a mixer's backends are those of is not listed again
    owners |= {op: backends_of(op) for op in OPS if not any(backends_of(op) is each for each in named)}
    return [_state(owner, backend, devices) for owner, all_of in owners.items() for backend in all_of.values()]


def compile_cache() -> str | None:
    """Where compiled CPU kernels are kept on disk; None where they are not, or numba cannot be used."""
    try:
        from ftmamba.ops.selective_scan import numba_kernels
        from ftmamba.ops.simd import cache_folder
    except Exception:  # whatever is wrong with numba stands beside its backends
        return None
    return cache_folder(numba_kernels.forward)  # type: ignore[no-any-return, no-untyped-call]


def _state(owner: str, backend: Backend, devices: list[str]) -> dict[str, Any]:
    refusals = {device: backend.refusal(device) for device in devices}
    usable_on = [device for device, refusal in refusals.items() if refusal is None]
    reason = "; ".join(dict.fromkeys(refusal for refusal in refusals.values() if refusal))
    if not set(backend.devices) & set(devices):
        missing = backend.refusal(backend.devices[0])
        reason = f"runs on {' and '.join(backend.devices)}, which torch does not find here"
        reason = f"{reason}; {missing}" if missing else reason
    if usable_on and (broken := _broken(owner, backend.name)):
        usable_on, reason = [], broken
    return {
        "owner": owner,
        "backend": backend.name,
        "usable_on": usable_on,
        "reason": "" if usable_on else reason,
        "about": backend.about,
    }


def _broken(owner: str, name: str) -> str | None:
    """What goes wrong when a backend whose packages are all there is loaded, such as one built for another torch."""
    if name == "triton" and (problem := compiler_problem()):
        return problem
    try:
        if owner in mixers.NAMES:
            mixers.build_mixer(mixers.find(owner)(backend=name), 64)
        else:
            backends_of(owner).load(name)
    except Exception as error:
        return f"installed, but fails to load: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def main() -> None:
    guard_child()
    request = json.load(sys.stdin)
    try:
        reply = facts()
        if request["backends"]:
            reply["backends"] = backend_states()
            reply["compile_cache"] = compile_cache()
        if request["roof_device"] and (request["roof_device"] != "cuda" or reply["gpus"]):
            reply["roof"] = roofs(resolve_device(request["roof_device"], reply), request["dtypes"], request["threads"])
    except Exception as error:
        reply = {"failed": f"torch does not work here: {type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    send_reply(reply)


if __name__ == "__main__":
    main()
