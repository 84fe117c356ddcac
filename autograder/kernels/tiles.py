"""Tiles of autotuned kernels: the interpreter runs the first configuration, a GPU any of them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["declared_tiles"]


@contextlib.contextmanager
def declared_tiles(place: int) -> Iterator[None]:
    """Within the block each autotuned kernel runs with one of the configurations declared for it: `place`, counted round.

    Declared are those of the lists that the kernel's module has by name and that one of the kernel's own configurations
    stands in: a list of which the interpreter is given the first. Does nothing where Triton has not been imported.
    """
    tuner: Any = getattr(sys.modules.get("triton.runtime.autotuner"), "Autotuner", None)
    if tuner is None:
        yield
        return
    run = tuner.run

    def run_one(self: Any, *args: Any, **kwargs: Any) -> Any:
        own, declared = self.configs, _declared(self)
        self.configs = [declared[place % len(declared)]]
        try:
            return run(self, *args, **kwargs)
        finally:
            self.configs = own

    tuner.run = run_one
    try:
        yield
    finally:
        tuner.run = run


def _declared(tuned: Any) -> list[Any]:
    found = list(tuned.configs)
    own = {id(one) for one in found}
    for value in tuned.base_fn.__globals__.values():
        if isinstance(value, (list, tuple)) and any(id(one) in own for one in value):
            found += [
                one for one in value if type(one) is type(found[0]) and all(one is not two for two in found)
            ]
    return found
