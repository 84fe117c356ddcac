"""Tensors whose first axis has gaps of gigabytes, of which next to nothing is there: 32-bit offsets do not reach across them."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["STEP", "far_apart", "guarded"]

STEP = 2**30
"""Elements from one place of the first axis to the next: twice that is more than 32 bits hold."""

FIRST, ROOM = 1 << 44, 1 << 37
"""Where the first such tensor lies, and bytes from one to the next: nothing else lies there."""

FIXED_NOREPLACE = 0x100000
FAR_OUTSIDE = "reads or writes far outside its tensors, as an offset does that has wrapped round in 32 bits"

_numbers = itertools.count(1)
_pieces: list[tuple[int, int]] = []
"""First and last address + 1 of all that is there."""


def far_apart(tensor: Tensor) -> Tensor:
    """The same numbers, `STEP` elements from one place of the first axis to the next; only these pieces take up memory.

    A tensor with fewer than three places, or of whole numbers, comes back as it is, and so do all where the system has no such
    memory to give. What has been taken is kept until the process ends.
    """
    size = tensor.element_size()
    if not tensor.is_floating_point() or tensor.dim() < 2 or tensor.shape[0] < 3 or sys.platform != "linux":
        return tensor
    rest = tensor[0].contiguous()
    length = (tensor.shape[0] - 1) * STEP + rest.numel()
    if length * size > ROOM // 2:
        return tensor
    base = FIRST + next(_numbers) * ROOM
    for place in range(tensor.shape[0]):
        if not _taken(base + place * STEP * size, rest.numel() * size):
            return tensor
    memory = (ctypes.c_ubyte * (length * size)).from_address(base)
    flat = torch.frombuffer(memory, dtype=tensor.dtype)
    moved = flat.as_strided(tensor.shape, (STEP, *rest.stride()))
    with torch.no_grad():
        moved.copy_(tensor)
    return moved


def _taken(address: int, size: int) -> bool:
    """Whether the pages there are ours now."""
    page = mmap.PAGESIZE
    wanted = -(-size // page) * page
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | FIXED_NOREPLACE
    got = libc.mmap(address, wanted, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if got != address:
        return False
    _pieces.append((address, address + wanted))
    return True


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Within the block an interpreted kernel that goes between the pieces raises IndexError, and does not end the process."""
    builder = getattr(sys.modules.get("triton.runtime.interpreter"), "interpreter_builder", None)
    if builder is None:
        yield
        return
    names = ("create_masked_load", "create_masked_store")
    before = {name: getattr(builder, name) for name in names}

    def load(pointers: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        _look(pointers, mask)
        return before["create_masked_load"](pointers, mask, *rest, **named)

    def store(pointers: Any, value: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        _look(pointers, mask)
        return before["create_masked_store"](pointers, value, mask, *rest, **named)

    vars(builder).update(zip(names, (load, store), strict=True))
    try:
        yield
    finally:
        for name in names:
            del vars(builder)[name]


def _look(pointers: Any, mask: Any) -> None:
    """Raises: IndexError if some of these addresses lie among far tensors, and in none of their pieces."""
    import numpy as np

    inside = np.broadcast_to(np.asarray(True if mask is None else mask.data, bool), pointers.data.shape)
    touched = pointers.data[inside]
    last = max((end for _, end in _pieces), default=FIRST) + ROOM // 2
    among = touched[(touched >= np.uint64(FIRST)) & (touched < np.uint64(last))]
    here = np.zeros(among.shape, bool)
    for first, end in _pieces:
        here |= (among >= np.uint64(first)) & (among < np.uint64(end))
    if not here.all():
        raise IndexError(FAR_OUTSIDE)
