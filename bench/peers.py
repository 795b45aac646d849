"""Build the CUDA peers, mamba-ssm and causal-conv1d, for the GPU that is here.

    python -m bench.peers --sdists sdists

Their own setup compiles for up to nine kinds of GPU and asks for packages that they do not need here. This compiles
pinned versions for one, from source archives in ``--sdists``; those that are not there are fetched into it first, so
that a folder filled elsewhere will do without a network. Needs nvcc, a C++ compiler and ``pip install '.[cuda]'``.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from bench import cli
from bench.records.store import RunError
from bench.run import environment

# In this order: mamba-ssm's fused layer wants the convolution.
PINNED = {"causal-conv1d": "1.7.0", "mamba-ssm": "2.3.2.post1"}
NEEDED = ("einops", "ninja", "packaging", "setuptools", "transformers", "wheel")
EXTENSIONS = ("causal_conv1d_cuda", "selective_scan_cuda")


class BuildError(ValueError):
    """The peers cannot be built here; the message is one line for people."""


def for_one_gpu(arguments: list[str], target: str) -> list[str]:
    """The compiler's arguments with all targets replaced by one, such as ``90``; those that have none are kept."""
    kept, following, found = [], False, False
    for each in arguments:
        named = each in ("-gencode", "--generate-code")
        if named or following or each.startswith(("-gencode=", "--generate-code=")):
            found = True
        else:
            kept.append(each)
        following = named
    return [*kept, *([f"-gencode=arch=compute_{target},code=sm_{target}"] if found else [])]


def write_compiler(path: Path, nvcc: str, target: str) -> None:
    """A program that calls nvcc for one target: torch runs what ``PYTORCH_NVCC`` names in its place."""
    call = f"os.execv({nvcc!r}, [{nvcc!r}, *for_one_gpu(sys.argv[1:], {target!r})])"
    path.write_text(f"#!{sys.executable}\nimport os, sys\n\n{inspect.getsource(for_one_gpu)}\n\n{call}\n")
    path.chmod(0o755)


def surroundings(compiler: Path, jobs: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Environment of the build: from source, with the kernels, by our compiler."""
    forced = {f"{name}_FORCE_BUILD": "TRUE" for name in ("MAMBA", "CAUSAL_CONV1D")}
    # Later versions of mamba-ssm leave the CUDA kernels of Mamba-1 out unless asked.
    return {**environ, **forced, "MAMBA_KEEP_CUDA_BUILD": "TRUE", "PYTORCH_NVCC": str(compiler), "MAX_JOBS": str(jobs)}


def find_nvcc() -> str:
    """The compiler of the CUDA toolkit that torch's extensions are built with.

    Raises:
        BuildError: there is none.
    """
    code = "from torch.utils.cpp_extension import CUDA_HOME; print(CUDA_HOME or '')"
    home = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    nvcc = Path(home, "bin", "nvcc")
    if not home or not nvcc.exists():
        raise BuildError("no nvcc found; install the CUDA toolkit of torch's CUDA version, or set CUDA_HOME")
    return str(nvcc)


def source_of(package: str, folder: Path) -> Path:
    """The package's source archive in a folder, fetched where it is not there.

    Raises:
        BuildError: it cannot be fetched.
    """
    version = PINNED[package]
    path = folder / f"{package.replace('-', '_')}-{version}.tar.gz"
    if not path.exists():
        skip = {"MAMBA_SKIP_CUDA_BUILD": "TRUE", "CAUSAL_CONV1D_SKIP_CUDA_BUILD": "TRUE"}
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
                   "--no-build-isolation", "--dest", str(folder), f"{package}=={version}"]  # fmt: skip
        if subprocess.run(command, env={**os.environ, **skip}, check=False).returncode or not path.exists():
            raise BuildError(f"{path} is not there and could not be fetched; put {package} {version} there yourself")
    return path


@click.command("peers", help=(__doc__ or "").splitlines()[0])
@click.option("--sdists", type=cli.PathType(), default="sdists", show_default=True, help="Folder of source archives.")
@click.option("--capability", help="Of the GPU to build for, such as 9.0; that of the first one here if not given.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, help="Files compiled at a time.")
def peers(sdists: Path, capability: str | None, jobs: int) -> int:
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise BuildError(f"{', '.join(missing)} not installed; install with: pip install {' '.join(missing)}")
    if capability is None:
        gpus = environment.probe()["gpus"]
        if not gpus:
            raise BuildError("no GPU that torch can use; name one to build for by --capability, such as 9.0")
        capability = str(gpus[0]["capability"])
    sdists.mkdir(parents=True, exist_ok=True)
    archives, nvcc = [source_of(package, sdists) for package in PINNED], find_nvcc()
    with tempfile.TemporaryDirectory() as folder:
        compiler = Path(folder, "nvcc")
        write_compiler(compiler, nvcc, capability.replace(".", ""))
        for archive in archives:
            cli.err.print(f"building {archive.name} for compute capability {capability}", markup=False)
            command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation",
                       "--no-cache-dir", "--force-reinstall", str(archive)]  # fmt: skip
            if subprocess.run(command, env=surroundings(compiler, jobs, os.environ), check=False).returncode:
                raise BuildError(f"{archive.name} could not be built; the compiler's words stand above")
    code = f"import torch, {', '.join(EXTENSIONS)}, mamba_ssm"
    if subprocess.run([sys.executable, "-c", code], check=False).returncode:
        raise BuildError("built, but the peers cannot be imported; the reason stands above")
    cli.out.print("mamba-ssm and causal-conv1d are there; python -m bench.env lists them", markup=False)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(peers, argv, errors=(BuildError, RunError, environment.MachineError, OSError))


if __name__ == "__main__":
    sys.exit(main())
