"""What a backend is: one implementation of one op, declared as data so that asking costs no import.

This module imports neither torch nor any backend's package. A program can therefore list what is usable on a
machine, and say why the rest is not, before it loads anything heavy.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One implementation of one op.

    Attributes:
        name: what the user types; also the name of the file beside the op's contract.
        about: one line for people.
        devices: device types it runs on, a subset of ``("cpu", "cuda")``.
        packages: import names it needs beyond torch.
        install: what to type when a package is missing.
    """

    name: str
    about: str
    devices: tuple[str, ...]
    packages: tuple[str, ...] = ()
    install: str = ""

    def refusal(self, device: str) -> str | None:
        """Why this backend cannot run on ``device`` here, or None when it can."""
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if missing:
            return f"{', '.join(missing)} not installed; install with: {self.install}"
        if device not in self.devices:
            return f"runs on {' and '.join(self.devices)}, not on {device}"
        return None


class Backends(Mapping[str, Backend]):
    """All backends of one op, the preferred one first.

    Args:
        op: import path of the op's folder; backend ``name`` lives in the module ``op.name``.
        backends: in order of preference, which is the order that ``auto`` tries.
    """

    def __init__(self, op: str, *backends: Backend) -> None:
        self.op = op
        self._backends = {backend.name: backend for backend in backends}

    def __getitem__(self, name: str) -> Backend:
        return self._backends[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._backends)

    def __len__(self) -> int:
        return len(self._backends)

    def resolve(self, name: str, device: str) -> str:
        """The exact backend for ``name`` on ``device``; ``auto`` takes the first that is usable.

        Raises:
            BackendError: unknown name, or not usable here; the message lists every reason.
        """
        if name == "auto":
            for candidate in self.values():
                if candidate.refusal(device) is None:
                    return candidate.name
            reasons = "; ".join(f"{b.name}: {b.refusal(device)}" for b in self.values())
            raise BackendError(f"no backend of {self.op} runs on {device}: {reasons}")
        if name not in self:
            raise BackendError(f"unknown backend {name!r}; choose from {', '.join(self)}")
        reason = self[name].refusal(device)
        if reason is not None:
            raise BackendError(f"backend {name!r} cannot run here: {reason}")
        return name

    def load_for(self, name: str, devices: Iterable[str]) -> dict[str, ModuleType]:
        """The module to run on each of ``devices``, where the backend (or what ``auto`` resolves to) is usable.

        Raises:
            BackendError: unknown name, or not usable on any of the devices.
        """
        modules, refusals = {}, []
        for device in devices:
            try:
                modules[device] = self.load(self.resolve(name, device))
            except BackendError as refusal:
                refusals.append(refusal)
        if not modules:
            raise refusals[0]
        return modules

    def load(self, name: str) -> ModuleType:
        """Import the module of an exact backend name. Measured code never falls back to another one."""
        if name not in self:
            raise BackendError(f"unknown backend {name!r}; choose from {', '.join(self)}")
        return importlib.import_module(f"{self.op}.{name}")


class BackendError(ValueError):
    """A backend was asked for that does not exist or cannot run here."""
