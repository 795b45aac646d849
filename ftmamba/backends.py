"""What a backend is: one implementation of one op, declared as data so that asking costs no import.

This module imports neither torch nor any backend's package. A program can therefore list what is usable on a
machine, and say why the rest is not, before it loads anything heavy.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

ANY = ("cpu", "cuda")
PEERS = "pip install mambapy transformers"
CUDA = "python -m bench.peers"


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One implementation of one op.

    Attributes:
        name: what the user types; also the name of the file beside the op's contract.
        about: one line for people.
        devices: device types it runs on, a subset of ``("cpu", "cuda")``.
        packages: import names it needs beyond torch.
        module: the file, where it is not the name's, and behind a colon what in it has the op's function.
        float64: whether it computes float64 inputs in float64; one that does not refuses them.
        half_only: devices on which it takes float16 and bfloat16 alone.
        install: what to type when a package is missing.
    """

    name: str
    about: str
    devices: tuple[str, ...]
    packages: tuple[str, ...] = ()
    install: str = ""
    module: str = ""
    float64: bool = True
    half_only: tuple[str, ...] = ()

    def refusal(self, device: str, float64: bool = False) -> str | None:
        """Why this backend cannot run on ``device`` here, with float64 inputs where asked, or None when it can."""
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if missing:
            return f"{', '.join(missing)} not installed; install with: {self.install}"
        if device not in self.devices:
            return f"runs on {' and '.join(self.devices)}, not on {device}"
        return "computes in float32; for float64 take 'auto' or 'reference'" if float64 and not self.float64 else None


NUMBA, TRITON = (
    Backend(
        name=name, about=f"our fused {processor} kernel", devices=(device,), packages=(name,),
        install=f"pip install {name}", float64=False,
    )
    for name, processor, device in (("numba", "CPU", "cpu"), ("triton", "GPU", "cuda"))
)  # fmt: skip


class Backends(Mapping[str, Backend]):
    """All backends of one op, the preferred one first.

    Args:
        op: import path of the op's folder; backend ``name`` lives in the module ``op.name``.
        backends: in order of preference, which is the order that ``auto`` tries.
    """

    def __init__(self, op: str, *backends: Backend) -> None:
        self.op = op
        self._backends = {backend.name: backend for backend in backends}
        self._modules: dict[str, ModuleType] = {}
        self._resolved: dict[tuple[str, str, bool], str] = {}

    def __getitem__(self, name: str) -> Backend:
        return self._backends[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._backends)

    def __len__(self) -> int:
        return len(self._backends)

    def resolve(self, name: str, device: str, float64: bool = False) -> str:
        """The exact backend for ``name`` on ``device``; ``auto`` takes the first that is usable.

        Raises:
            BackendError: unknown name, or not usable here; the message lists every reason.
        """
        if name == "auto":
            reasons = {candidate.name: candidate.refusal(device, float64) for candidate in self.values()}
            usable = next((name for name, reason in reasons.items() if reason is None), None)
            if usable is None:
                listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
                raise BackendError(f"no backend of {self.op} runs on {device}: {listed}")
            return usable
        self._check_name(name)
        reason = self[name].refusal(device, float64)
        if reason is not None:
            raise BackendError(f"backend {name!r} cannot run here: {reason}")
        return name

    def usable_on(self, name: str, devices: Iterable[str]) -> list[str]:
        """Those of ``devices`` on which ``name`` can run.

        Raises:
            BackendError: unknown name, or usable on none of them.
        """
        usable, refusals = [], []
        for device in devices:
            try:
                self.resolve(name, device)
                usable.append(device)
            except BackendError as refusal:
                refusals.append(refusal)
        if not usable:
            raise refusals[0]
        return usable

    def prepare(self, name: str, devices: Iterable[str]) -> list[ModuleType]:
        """Import all that ``load_for`` may be asked for, so that torch.compile, which cannot trace imports, finds it.

        Raises:
            BackendError: unknown name, or usable on none of the devices.
        """
        modules = []
        for device, float64 in itertools.product(self.usable_on(name, devices), (False, True)):
            with contextlib.suppress(BackendError):
                modules.append(self.load_for(name, device, float64))
        return modules

    def load_for(self, name: str, device: str, float64: bool) -> ModuleType:
        """The module of ``resolve``'s backend, quick enough for every forward pass to ask."""
        key = (name, device, float64)
        if key not in self._resolved:
            self._resolved[key] = self.resolve(*key)
        return self.load(self._resolved[key])

    def load(self, name: str) -> ModuleType:
        """The module of an exact backend name. Measured code never falls back to another one."""
        if name not in self._modules:
            self._check_name(name)
            file, _, part = (self[name].module or name).partition(":")
            module = importlib.import_module(f"{self.op}.{file}")
            self._modules[name] = getattr(module, part) if part else module
        return self._modules[name]

    def _check_name(self, name: str) -> None:
        if name not in self:
            raise BackendError(f"unknown backend {name!r}; choose from {', '.join(self)}")


class BackendError(ValueError):
    """A backend was asked for that does not exist or cannot run here.

    Examples:
        >>> from ftmamba import EncoderSpec, FeatureSpec, FTEncoder, MambaSpec
        >>> FTEncoder(EncoderSpec(mixer=MambaSpec(backend="quick")), FeatureSpec(3))
        Traceback (most recent call last):
        ftmamba.backends.BackendError: unknown backend 'quick'; choose from numba, triton, mamba_ssm, reference, mambapy
    """
