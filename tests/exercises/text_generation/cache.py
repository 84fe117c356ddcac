"""`KVCache`: right writings and mutants."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant, right

NAME = "KVCache"


@right(NAME)
class Joined:
    """Joined with cat; the methods below are what mutants change."""

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


@right(NAME)
class KeepsPieces:
    def __init__(self, max_length):
        self.max_length, self.pieces = max_length, []

    def __len__(self):
        return self.count()

    def count(self):
        return sum(key.size(-2) for key, _ in self.pieces)

    def reset(self):
        self.pieces.clear()

    def append(self, key, value):
        if self.count() + key.size(-2) > self.max_length:
            raise ValueError(f"no room for {key.size(-2)}")
        self.pieces.append((key, value))
        return tuple(torch.cat(parts, dim=-2) for parts in zip(*self.pieces, strict=True))


@right(NAME)
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
            self.write(buffer, piece, new)
        self.n += new
        return tuple(buffer.narrow(-2, 0, self.n) for buffer in self.buffers)

    def write(self, buffer, piece, new):
        buffer.narrow(-2, self.n, new).copy_(piece)


@mutant(NAME, "newest first")
class NewestFirst(Joined):
    def joined(self, old, new):
        return new if old is None else torch.cat([new, old], -2)


@mutant(NAME, "only the new positions come back")
class OnlyNew(Joined):
    def append(self, key, value):
        super().append(key, value)
        return key, value


@mutant(NAME, "the new positions are missing")
class OneBehind(Joined):
    def append(self, key, value):
        before = self.keys, self.values
        super().append(key, value)
        return before if before[0] is not None else (key[..., :0, :], value[..., :0, :])


@mutant(NAME, "only the last two pieces are kept")
class KeepsThePiece(KeepsPieces):
    def append(self, key, value):
        super().append(key, value)
        return tuple(torch.cat(parts[-2:], -2) for parts in zip(*self.pieces, strict=True))


@mutant(NAME, "always written to the start")
class AlwaysTheStart(Buffers):
    def write(self, buffer, piece, new):
        buffer[..., :new, :] = piece


@mutant(NAME, "keys and values swapped")
class Swapped(Joined):
    def append(self, key, value):
        return super().append(key, value)[::-1]


@mutant(NAME, "the unused places come back, too")
class WholeBuffer(Buffers):
    def append(self, key, value):
        super().append(key, value)
        return tuple(self.buffers)


@mutant(NAME, "values are not kept")
class ForgetsValues(Joined):
    def append(self, key, value):
        return super().append(key, value)[0], value


@mutant(NAME, "len() is wrong")
class CountsAppends(KeepsPieces):
    def __len__(self):
        return len(self.pieces)


@mutant(NAME, "reset does not forget")
class NeverResets(KeepsPieces):
    def reset(self):
        pass


@mutant(NAME, "does not keep the dtype")
class ResetOfTheLengthOnly(Buffers):
    """The buffers stay, of the old batch size and dtype."""

    def reset(self):
        self.n = 0


@mutant(NAME, "grows beyond max_length")
class NeverFull(Joined):
    def refuse(self, new):
        pass


@mutant(NAME, "grows beyond max_length")
class FirstOneFits(Joined):
    def refuse(self, new):
        if len(self):
            super().refuse(new)


@mutant(NAME, "a refused append leaves its traces")
class RefusesTooLate(Joined):
    def append(self, key, value):
        self.keys, self.values = self.joined(self.keys, key), self.joined(self.values, value)
        self.refuse(0)
        return self.keys, self.values


@mutant(NAME, "all caches share their contents")
class OnTheClass(Joined):
    held = {}
    keys = property(lambda self: self.held["k"], lambda self, keys: self.held.update(k=keys))
    values = property(lambda self: self.held["v"], lambda self, values: self.held.update(v=values))


@mutant(NAME)
class FourAxesOnly(Joined):
    def joined(self, old, new):
        return new if old is None else torch.cat([old, new], 2)


@mutant(NAME, "does not keep the dtype")
class InFloat32(Joined):
    def append(self, key, value):
        return super().append(key.float(), value.float())


@mutant(NAME, "does not return what is asked for")
class ReturnsNothing(Joined):
    def append(self, key, value):
        super().append(key, value)
