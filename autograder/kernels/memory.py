"""What a kernel does while it is interpreted that a GPU would not forgive: straying from its tensors, races, TF32.

The interpreter runs one program after the other, reads whatever lies behind a tensor, and multiplies float32 in full; a GPU
does none of that.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["Accesses", "watching"]

READ, WRITE, ATOMIC = range(3)


class Accesses:
    """The reads and writes of one launch. areas: first and last address + 1 of each tensor's memory."""

    def __init__(self, areas: list[tuple[int, int]]):
        self.areas = areas
        self.strayed = False
        self.narrowed = False
        """Whether float32 tiles are multiplied in what a GPU would do in TF32."""
        self.ordered = False
        """Whether programs wait for each other, with atomics on whole numbers: then another order is no race."""
        self.notes: list[tuple[int, Any, Any, Any]] = []

    def note(self, kind: int, program: Any, pointers: Any, mask: Any, values: Any = None) -> None:
        """One access of one program to the elements at `pointers` that `mask` lets through."""
        import numpy as np

        inside = np.broadcast_to(np.asarray(True if mask is None else mask.data, bool), pointers.data.shape)
        touched = pointers.data[inside]
        if not touched.size:
            return
        kept = None if values is None else np.broadcast_to(values.data, inside.shape)[inside]
        self.notes.append((kind, program, touched, kept))
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        low, high = int(touched.min()), int(touched.max()) + size
        if not any(first <= low and high <= end for first, end in self.areas):
            here = np.zeros(touched.shape, bool)
            for first, end in self.areas:
                here |= (touched >= np.uint64(first)) & (touched + np.uint64(size) <= np.uint64(end))
            self.strayed |= not bool(here.all())

    def raced(self) -> bool:
        """Whether one program wrote what another one read or wrote, other than the same number or with atomics."""
        import numpy as np

        if self.ordered or not any(kind != READ for kind, *_ in self.notes):
            return False
        programs = {
            program: place for place, program in enumerate(dict.fromkeys(one[1] for one in self.notes))
        }
        if len(programs) == 1:
            return False
        kinds, who, where, what = (
            np.concatenate(parts)
            for parts in zip(
                *(
                    (
                        np.full(touched.size, kind),
                        np.full(touched.size, programs[program]),
                        touched.ravel(),
                        np.zeros(touched.size) if kept is None else kept.ravel().astype(np.float64),
                    )
                    for kind, program, touched, kept in self.notes
                ),
                strict=True,
            )
        )
        order = np.argsort(where, kind="stable")
        kinds, who, where, what = kinds[order], who[order], where[order], what[order]
        starts = np.flatnonzero(np.concatenate(([True], where[1:] != where[:-1])))

        def some(of: Any) -> Any:
            return np.logical_or.reduceat(of, starts)

        several = np.minimum.reduceat(who, starts) != np.maximum.reduceat(who, starts)
        read, written, added = (some(kinds == kind) for kind in (READ, WRITE, ATOMIC))
        with np.errstate(invalid="ignore"):
            differ = ~(np.minimum.reduceat(what, starts) == np.maximum.reduceat(what, starts))
        clash = (written & (read | added | differ)) | (added & read)
        return bool((several & clash).any())


def _areas(arguments: Iterable[Any]) -> list[tuple[int, int]] | None:
    """The memory of all tensors among a launch's arguments; None if some of it is on a GPU."""
    areas = []
    waiting = list(arguments)
    while waiting:
        one = waiting.pop()
        if isinstance(one, (list, tuple)):
            waiting += one
            continue
        one = getattr(one, "base", one)  # of a tensor descriptor
        if not hasattr(one, "untyped_storage"):
            continue
        if one.device.type != "cpu":
            return None
        storage = one.untyped_storage()
        areas.append((storage.data_ptr(), storage.data_ptr() + storage.nbytes()))
    return areas


@contextlib.contextmanager
def watching(arguments: Iterable[Any]) -> Iterator[Accesses | None]:
    """Within the block, the accesses of a launch with these arguments; None where nothing is interpreted."""
    builder = getattr(sys.modules.get("triton.runtime.interpreter"), "interpreter_builder", None)
    areas = _areas(arguments)
    if builder is None or areas is None:
        yield None
        return
    seen = Accesses(areas)
    load, store = builder.create_masked_load, builder.create_masked_store
    change, swap, dot = builder.create_atomic_rmw, builder.create_atomic_cas, builder.create_dot

    def masked_load(pointers: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        seen.note(READ, builder.grid_idx, pointers, mask)
        return load(pointers, mask, *rest, **named)

    def masked_store(pointers: Any, value: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        seen.note(WRITE, builder.grid_idx, pointers, mask, value)
        return store(pointers, value, mask, *rest, **named)

    def atomic_rmw(operation: Any, pointers: Any, value: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        seen.note(ATOMIC, builder.grid_idx, pointers, mask)
        seen.ordered |= value.data.dtype.kind != "f"
        return change(operation, pointers, value, mask, *rest, **named)

    def atomic_cas(pointers: Any, *rest: Any, **named: Any) -> Any:
        seen.note(ATOMIC, builder.grid_idx, pointers, None)
        seen.ordered = True
        return swap(pointers, *rest, **named)

    def product(one: Any, other: Any, total: Any, precision: Any, *rest: Any, **named: Any) -> Any:
        single = all(each.data.dtype.name == "float32" for each in (one, other))
        seen.narrowed |= single and getattr(precision, "name", "") == "TF32"
        return dot(one, other, total, precision, *rest, **named)

    watched = {
        "create_dot": product,
        "create_masked_load": masked_load,
        "create_masked_store": masked_store,
        "create_atomic_rmw": atomic_rmw,
        "create_atomic_cas": atomic_cas,
    }
    vars(builder).update(watched)
    try:
        yield seen
    finally:
        for name in watched:
            del vars(builder)[name]
