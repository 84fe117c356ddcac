"""`split_heads` and `merge_heads`: right writings and mutants."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant, right


def even(width, num_heads):
    if width % num_heads:
        raise ValueError(f"D = {width} is not a multiple of num_heads = {num_heads}.")


# Right writings


@right("split_heads")
def view_and_transpose(x, num_heads):
    even(x.shape[-1], num_heads)
    return x.view(*x.shape[:-1], num_heads, x.shape[-1] // num_heads).transpose(-3, -2)


@right("split_heads")
def stacked_chunks(x, num_heads):
    if x.shape[-1] % num_heads != 0:
        raise ValueError(f"cannot cut {x.shape[-1]} features into {num_heads} heads of equal width")
    return torch.stack(x.chunk(num_heads, dim=-1), dim=-3)


@right("split_heads")
def loop_over_slices(x, num_heads):
    even(x.shape[-1], num_heads)
    width = x.shape[-1] // num_heads
    return torch.stack([x[..., h * width : (h + 1) * width] for h in range(num_heads)], dim=-3)


@right("split_heads")
def by_an_index_table(x, num_heads):
    even(x.shape[-1], num_heads)
    table = torch.arange(x.shape[-1], device=x.device).reshape(num_heads, -1)
    return x[..., table].movedim(-2, -3).contiguous()


@right("split_heads")
def by_copying(x, num_heads):
    even(x.shape[-1], num_heads)
    width = x.shape[-1] // num_heads
    heads = x.new_empty(*x.shape[:-2], num_heads, x.shape[-2], width)
    for h in range(num_heads):
        heads[..., h, :, :] = x.narrow(-1, h * width, width)
    return heads


@right("merge_heads")
def joined(heads):
    return torch.cat(heads.unbind(-3), dim=-1)


@right("merge_heads")
def transpose_and_reshape(heads):
    *lead, H, S, D = heads.shape
    return heads.transpose(-2, -3).reshape(*lead, S, H * D)


@right("merge_heads")
def contiguous_view(heads):
    moved = heads.movedim(-3, -2).contiguous()
    return moved.view(*moved.shape[:-2], -1)


@right("merge_heads")
def loop_over_heads(heads):
    return torch.cat([heads[..., h, :, :] for h in range(heads.shape[-3])], -1)


@right("merge_heads")
def features_first(heads):
    return heads.mT.flatten(-3, -2).mT


# Mutants of split_heads

SPLIT, MERGE = "split_heads", "merge_heads"


def reference(x, num_heads):
    even(x.shape[-1], num_heads)
    return x.unflatten(-1, (num_heads, -1)).transpose(-3, -2)


@mutant(SPLIT, "heads cut by a reshape alone")
def reshape_alone(x, num_heads):
    even(x.shape[-1], num_heads)
    return x.reshape(*x.shape[:-2], num_heads, x.shape[-2], -1)


@mutant(SPLIT, "every num_heads-th feature for a head")
def interleaved(x, num_heads):
    even(x.shape[-1], num_heads)
    return x.unflatten(-1, (-1, num_heads)).movedim(-1, -3)


@mutant(SPLIT, "heads has the wrong shape")
def heads_behind_positions(x, num_heads):
    even(x.shape[-1], num_heads)
    return x.unflatten(-1, (num_heads, -1))


@mutant(SPLIT, "sizes are not compared", only="uneven heads")
def remainder_dropped(x, num_heads):
    width = x.shape[-1] // num_heads
    return x[..., : num_heads * width].unflatten(-1, (num_heads, width)).transpose(-3, -2)


@mutant(SPLIT, "raises another exception than ValueError")
def error_of_torch(x, num_heads):
    return x.view(*x.shape[:-1], num_heads, x.shape[-1] // num_heads).transpose(-3, -2)


@mutant(SPLIT, "the refusal does not say why", only="uneven heads")
def silent_error(x, num_heads):
    if x.shape[-1] % num_heads:
        raise ValueError("sizes do not fit")
    return reference(x, num_heads)


@mutant(SPLIT, "fixed number of leading axes")
def three_axes_only(x, num_heads):
    even(x.shape[-1], num_heads)
    B, S, D = x.shape
    return x.view(B, S, num_heads, D // num_heads).transpose(1, 2)


@mutant(SPLIT)
def by_way_of_half(x, num_heads):
    return reference(x.half(), num_heads).to(x.dtype)


@mutant(SPLIT, "depends on the memory layout of its inputs")
def memory_read_in_order(x, num_heads):
    return reference(x.as_strided(x.shape, torch.empty(x.shape).stride()), num_heads)


@mutant(SPLIT, "heads has the wrong shape")
def input_back(x, num_heads):
    return x


@mutant(SPLIT, "does not return what is asked for")
def list_of_heads(x, num_heads):
    even(x.shape[-1], num_heads)
    return list(x.chunk(num_heads, -1))


# Mutants of merge_heads


def together(heads):
    return heads.transpose(-3, -2).flatten(-2)


@mutant(MERGE, "heads merged by a reshape alone")
def reshape_only(heads):
    *lead, H, S, D = heads.shape
    return heads.reshape(*lead, S, H * D)


@mutant(MERGE, "features of the heads interleaved")
def interleaving(heads):
    return heads.movedim(-3, -1).flatten(-2)


@mutant(MERGE, "merged has the wrong shape")
def stacked_positions(heads):
    return heads.flatten(-3, -2)


@mutant(MERGE, "merged has the wrong shape")
def first_head(heads):
    return heads[..., 0, :, :]


@mutant(MERGE, "merged has the wrong shape")
def squeezed_heads(heads):
    return together(heads).squeeze()


@mutant(MERGE, "fixed number of leading axes")
def four_axes_only(heads):
    B, H, S, D = heads.shape
    return heads.permute(0, 2, 1, 3).reshape(B, S, H * D)


@mutant(MERGE, "depends on the memory layout of its inputs")
def memory_order_merge(heads):
    return together(heads.as_strided(heads.shape, torch.empty(heads.shape).stride()))


@mutant(MERGE)
def view_without_contiguous(heads):
    moved = heads.transpose(-3, -2)
    return moved.view(*moved.shape[:-2], -1)
