"""`KVCache`: right writings and mutants."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant, right


class Joined:
    """Right: joined with cat; the methods below are what mutants change."""

    def __init__(self, max_length):
        self.max_length = max_length
        self.reset()

    def reset(self):
        self.keys = self.values = None

    def __len__(self):
        return 0 if self.keys is None else self.keys.shape[-2]

    def refuse(self, new):
        if len(self) + new > self.max_length:
            raise ValueError("full")

    def joined(self, old, new):
        return new if old is None else torch.cat([old, new], -2)

    def append(self, key, value):
        self.refuse(key.shape[-2])
        self.keys, self.values = self.joined(self.keys, key), self.joined(self.values, value)
        return self.keys, self.values


@right("KVCache")
class Concatenates(Joined):
    pass


@right("KVCache")
class KeepsPieces:
    def __init__(self, max_length):
        self.max_length, self.pieces = max_length, []

    def __len__(self):
        return sum(key.size(-2) for key, _ in self.pieces)

    def reset(self):
        self.pieces.clear()

    def append(self, key, value):
        if len(self) + key.size(-2) > self.max_length:
            raise ValueError(f"no room for {key.size(-2)}")
        self.pieces.append((key, value))
        return tuple(torch.cat(parts, dim=-2) for parts in zip(*self.pieces, strict=True))


@right("KVCache")
class Buffers:
    def __init__(self, max_length):
        self.max_length, self.buffers, self.n = max_length, None, 0

    def __len__(self):
        return self.n

    def reset(self):
        self.buffers, self.n = None, 0

    def append(self, key, value):
        new = key.shape[-2]
        if self.n + new > self.max_length:
            raise ValueError("full")
        if self.buffers is None:
            self.buffers = [x.new_zeros(*x.shape[:-2], self.max_length, x.shape[-1]) for x in (key, value)]
        for buffer, piece in zip(self.buffers, (key, value), strict=True):
            buffer.narrow(-2, self.n, new).copy_(piece)
        self.n += new
        return tuple(buffer.narrow(-2, 0, self.n) for buffer in self.buffers)


@mutant("KVCache", "newest first")
class NewestFirst(Joined):
    def joined(self, old, new):
        return new if old is None else torch.cat([new, old], -2)


@mutant("KVCache", "only the new positions come back")
class OnlyNew(Joined):
    def append(self, key, value):
        super().append(key, value)
        return key, value


@mutant("KVCache", "the new positions are missing")
class OneBehind(Joined):
    def append(self, key, value):
        before = self.keys, self.values
        super().append(key, value)
        return before if before[0] is not None else (key[..., :0, :], value[..., :0, :])


@mutant("KVCache", "only the last two pieces are kept")
class KeepsThePiece(Joined):
    length = 0

    def __len__(self):
        return self.length

    def append(self, key, value):
        keys, values = self.joined(self.keys, key), self.joined(self.values, value)
        self.keys, self.values = key, value
        self.length = self.length + key.shape[-2]
        return keys, values


@mutant("KVCache", "always written to the start")
class AlwaysTheStart(Buffers):
    def append(self, key, value):
        new = key.shape[-2]
        keys, values = super().append(key, value)
        fresh = self.n == new
        for buffer, piece in zip(self.buffers, (key, value), strict=True):
            buffer[..., self.n - new : self.n, :] = piece if fresh else 0
            buffer[..., :new, :] = piece
        return keys, values


@mutant("KVCache", "keys and values swapped")
class Swapped(Joined):
    def append(self, key, value):
        return super().append(key, value)[::-1]


@mutant("KVCache", "the unused places come back, too")
class WholeBuffer(Buffers):
    def append(self, key, value):
        super().append(key, value)
        return tuple(self.buffers)


@mutant("KVCache", "values are not kept")
class ForgetsValues(Joined):
    def append(self, key, value):
        return super().append(key, value)[0], value


@mutant("KVCache", "len() is wrong", only="length")
class CountsAppends(KeepsPieces):
    def __len__(self):
        return len(self.pieces)

    def append(self, key, value):
        if sum(k.size(-2) for k, _ in self.pieces) + key.size(-2) > self.max_length:
            raise ValueError("full")
        self.pieces.append((key, value))
        return tuple(torch.cat(parts, dim=-2) for parts in zip(*self.pieces, strict=True))


@mutant("KVCache", "reset does not forget", only="reset")
class ResetOfTheLengthOnly(Buffers):
    """The buffers stay, of the old batch size."""

    def reset(self):
        self.n = 0


@mutant("KVCache", "grows beyond max_length", only="full")
class NeverFull(Joined):
    def refuse(self, new):
        pass


@mutant("KVCache", "a refused append leaves its traces", only="full")
class RefusesTooLate(Joined):
    def append(self, key, value):
        self.keys, self.values = self.joined(self.keys, key), self.joined(self.values, value)
        if len(self) > self.max_length:
            raise ValueError("full")
        return self.keys, self.values


@mutant("KVCache", "all caches share their contents", only="apart")
class OnTheClass(Joined):
    keys = values = None

    def __init__(self, max_length):
        self.max_length = max_length
        type(self).keys = type(self).values = None

    def reset(self):
        type(self).keys = type(self).values = None

    def append(self, key, value):
        self.refuse(key.shape[-2])
        kind = type(self)
        kind.keys, kind.values = self.joined(self.keys, key), self.joined(self.values, value)
        return kind.keys, kind.values


@mutant("KVCache", only="leading axes")
class FourAxesOnly(Joined):
    def joined(self, old, new):
        return new if old is None else torch.cat([old, new], 2)


@mutant("KVCache", "does not keep the dtype", only="dtype")
class InFloat32(Joined):
    def append(self, key, value):
        return super().append(key.float(), value.float())


@mutant("KVCache", "does not return what is asked for", only="grows")
class ReturnsNothing(Joined):
    def append(self, key, value):
        super().append(key, value)
