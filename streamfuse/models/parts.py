"""The parts that models are put together from, by name: ours, and those that installed packages bring.

A package brings a part by an entry point in one of the groups below, `my_fusion = my_package.fusions:MyFusion`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, Literal, TypeVar

from torch import nn

Scope = Literal["item", "causal", "window"]
"""What a token of an encoder depends on; see `streamfuse.models.encoders`."""

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class UnknownPart(ValueError):
    """An architecture names a part that does not exist, or gives it options that it does not have."""


class Registry(Generic[T]):
    """Parts of one kind. Ours register themselves as their modules in `home` are imported, which the first question does.

    Ours come before those of installed packages.
    """

    def __init__(self, kind: str, group: str, home: str) -> None:
        self.kind, self.group, self._home = kind, group, home
        self._ours: dict[str, Callable[..., T]] = {}
        self._is_complete = False

    def register(self, name: str) -> Callable[[F], F]:
        """Decorates what makes the part."""

        def add(factory: F) -> F:
            if self._ours.setdefault(name, factory) is not factory:
                raise ValueError(f"expected each {self.kind} to have a name of its own, found {name!r} twice")
            return factory

        return add

    def names(self) -> list[str]:
        return sorted({*self._known(), *(point.name for point in entry_points(group=self.group))})

    def __getitem__(self, name: str) -> Callable[..., T]:
        """What makes the part. Raises `UnknownPart`, also for an installed one that can't be imported."""
        if name in self._known():
            return self._ours[name]
        for point in entry_points(group=self.group, name=name):
            try:
                factory: Callable[..., T] = point.load()
            except Exception as error:
                raise UnknownPart(f"the {self.kind} {name!r} of {point.value} can't be imported: {error!r}; mend that package") from error
            return factory
        raise UnknownPart(f"expected a {self.kind} that is known here ({', '.join(self.names())}), found {name!r}")

    def make(self, options: Mapping[str, Any], /, **given: Any) -> T:
        """The part that `options` describe: `type` and its own ones. Raises `UnknownPart` with a sentence."""
        name = str(options.get("type"))
        factory = self[name]
        own = {key: value for key, value in options.items() if key != "type"}
        try:
            return factory(**given, **own)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise UnknownPart(f"the {self.kind} {name!r} does not take the options {own}: {error}") from None

    def _known(self) -> Mapping[str, Callable[..., T]]:
        if not self._is_complete:
            home = importlib.import_module(self._home)
            for module in pkgutil.iter_modules(getattr(home, "__path__", ())):
                importlib.import_module(f"{self._home}.{module.name}")
            self._is_complete = True
        return self._ours


ENCODERS: Registry[nn.Module] = Registry("encoder", "streamfuse.encoders", "streamfuse.models.encoders")
FUSIONS: Registry[nn.Module] = Registry("fusion", "streamfuse.fusions", "streamfuse.models.fusions")
HEADS: Registry[nn.Module] = Registry("head", "streamfuse.heads", "streamfuse.models.heads")
