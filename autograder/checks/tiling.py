"""Tiling: what is computed block by block never makes the whole table, and nothing is computed that is not needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autograder.case import Case
from autograder.checks.check import Probe
from autograder.checks.conduct import Allowance, observed
from autograder.checks.failure import Failure
from autograder.checks.objects import Remote
from autograder.checks.subject import FunctionSubject
from autograder.checks.trial import Trial
from autograder.observation import Observation, observe

__all__ = [
    "WHOLE_TABLE",
    "BlocksFunction",
    "a_block_at_a_time",
    "dead_blocks",
    "far_from_zero",
    "masked_blocks",
    "tiled",
]

WHOLE_TABLE = "makes the whole S_q x S_k table"
JOINED = "joins the blocks"
ELSEWHERE = frozenset({"numpy", "__array__"})
"""Ways out of torch, behind which no memory and no work is seen."""


def tiled(
    largest: Allowance,
    flops: Allowance,
    table: Allowance,
    outputs: tuple[str, ...],
    made: Allowance | None = None,
) -> Probe:
    """On a long sequence the results are right, no tensor is larger than `largest`, and the work is within `flops`.

    table: elements of the table of all pairs, far more than `largest`; all tensors together hold half of it at most.
    made: the most elements of all tensors, one after the other, where fewer than all pairs are to be looked at.
    """

    def probe(trial: Trial) -> None:
        results = trial()
        for name in outputs:
            trial.require(name, results[name], "on a long sequence it differs from the formula")
        seen, allowed, whole = observed(trial), largest(trial.inputs), table(trial.inputs)
        _require_torch(seen)
        if seen.largest > allowed:
            raise Failure(
                f"its largest tensor holds {seen.largest:,} numbers; {allowed:,} are allowed"
                + (
                    f", and the table of all pairs has {whole:,}. Is a tensor made with one entry for each pair of positions, "
                    "even if only to hold a mask?"
                    if seen.largest >= whole
                    else ". Is more kept in one tensor than a block needs?"
                ),
                mistake=WHOLE_TABLE if seen.largest >= whole else "uses too much memory",
            )
        if seen.flops > (most := flops(trial.inputs)):
            raise Failure(
                f"takes {seen.flops:,} floating-point operations; {most:,} are enough. "
                "Are scores computed and then thrown away, or computed twice?",
                mistake="does too much work",
            )
        if made is not None and seen.made > made(trial.inputs):
            raise Failure(
                f"makes tensors of {seen.made:,} numbers, one after the other; {made(trial.inputs):,} are enough. "
                "Is every pair of positions looked at, and most of them for nothing?",
                mistake="does too much work",
            )
        if seen.held > whole // 2:
            raise Failure(
                f"holds {seen.held:,} numbers at one time, in pieces; the table of all pairs has {whole:,}. "
                "Is what a block gave kept, instead of added to a running result?",
                mistake="keeps every block",
            )

    return probe


def _require_torch(seen: Observation) -> None:
    if elsewhere := seen.calls & ELSEWHERE:
        raise Failure(
            f"turns tensors into numpy arrays ({', '.join(sorted(elsewhere))}), whose memory and work nobody sees. "
            "Is there a torch function for it?",
            mistake="computes outside torch",
        )


def far_from_zero(asked: str, masked: Callable[[Mapping[str, Any]], bool] = lambda inputs: False) -> Probe:
    """What is right for scores near zero is right for scores far from it, of either sign. To name what is wrong elsewhere.

    asked: the input to which the scores are proportional. masked: whether some of the scores are hidden.
    """

    def probe(trial: Trial) -> None:
        results, expected = trial(), trial.expect()
        if all(trial.close(name, result) for name, result in results.items()):
            return
        near = {asked: trial.inputs[asked] * 1e-3}
        if not all(trial.close(name, result, **near) for name, result in trial(**near).items()):
            return  # something else is wrong
        if not all(
            bool(torch.isfinite(result[torch.isfinite(expected[name].value)]).all())
            for name, result in results.items()
        ):
            raise Failure(
                "scores far from zero give nan or inf. Is the largest score that was seen so far subtracted before exp, also "
                "where all of them are negative?",
                mistake="overflows or underflows for large scores",
            )
        if masked(trial.inputs):
            raise Failure(
                "where the scores lie far below zero it differs from the formula. Is the mask value -inf or the dtype's lowest "
                "number, or merely a low one?",
                mistake="mask value is not low enough",
            )

    return probe


class BlocksFunction(FunctionSubject):
    """A student's function of a list of blocks, as a function of `scores` (..., S_k) and the `sizes` of its blocks."""

    def call(self, case: Case, inputs: Mapping[str, Any]) -> Any:
        """(weights, log_sum_exp), the weights joined along the last axis. learns: the only block with a gradient."""
        blocks = list(inputs["scores"].split(inputs["sizes"], -1))
        if inputs.get("learns") is not None:
            kept = blocks[inputs["learns"]]
            blocks = [one if one is kept else one.detach() for one in blocks]
        result = self.function(list(blocks))
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            return result  # whoever named the results says what is wrong
        weights = result[0]
        if not isinstance(weights, (tuple, list)) or not all(isinstance(one, Tensor) for one in weights):
            raise Failure(
                "the weights must be a list of tensors, one for each block; they are "
                + ("one tensor." if isinstance(weights, Tensor) else f"a {type(weights).__name__}."),
                mistake="does not return what is asked for",
            )
        got, wanted = ([tuple(one.shape) for one in many] for many in (weights, blocks))
        if got != wanted:
            place = next(
                (n for n, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), len(wanted)
            )
            raise Failure(
                f"{len(got)} blocks of weights came back for {len(wanted)} blocks of scores."
                if len(got) != len(wanted)
                else f"block {place} of the weights has shape {got[place]}; expected {wanted[place]}.",
                mistake="weights has the wrong shape",
            )
        return torch.cat(list(weights), -1), result[1]

    def observe(self, case: Case, inputs: Mapping[str, Any]) -> Observation:
        """What the function does with the blocks; whether it writes into them, or puts others into the list."""
        if isinstance(self.function, Remote):
            seen = self.function.observe([list(inputs["scores"].split(inputs["sizes"], -1))], {})
            return replace(
                seen, modified=tuple(f"blocks[{place.partition('.')[2]}]" for place in seen.modified)
            )
        blocks = {
            f"blocks[{n}]": block for n, block in enumerate(inputs["scores"].split(inputs["sizes"], -1))
        }
        replaced: list[str] = []

        def call(given: Mapping[str, Any]) -> Any:
            handed, before = list(given.values()), list(given.values())
            result = self.function(handed)
            if [id(one) for one in handed] != [id(one) for one in before]:
                replaced.append("blocks")
            return result

        seen = observe(call, blocks)
        return replace(seen, modified=(*seen.modified, *replaced))


def a_block_at_a_time() -> Probe:
    """No tensor holds more than twice the numbers of the largest block. For a BlocksFunction."""

    def probe(trial: Trial) -> None:
        scores, sizes = trial.inputs["scores"], trial.inputs["sizes"]
        rows = scores.numel() // scores.shape[-1]
        seen, allowed = observed(trial), 2 * rows * max(sizes)
        _require_torch(seen)
        got = seen.largest
        if got > allowed:
            joined = got >= scores.numel()
            raise Failure(
                f"its largest tensor holds {got:,} numbers; the largest block has {allowed // 2:,}"
                + (f", all blocks together {scores.numel():,}. Are the blocks joined?" if joined else "."),
                mistake=JOINED if joined else "uses too much memory",
            )

    return probe


def masked_blocks() -> Probe:
    """Blocks of nothing but -inf weigh nothing, wherever they stand; rows of nothing else have weights 0 and
    log_sum_exp -inf, and disturb no other row. For a BlocksFunction on a case whose row 0 is finite."""

    def probe(trial: Trial) -> None:
        scores, sizes = trial.inputs["scores"], trial.inputs["sizes"]
        first = scores.clone()
        first[..., : sizes[0]] = -torch.inf
        last = scores.clone()
        last[..., -sizes[-1] :] = -torch.inf
        middle = scores.clone()
        middle[..., sizes[0] : sizes[0] + sizes[1]] = -torch.inf
        some = scores.clone()
        some[..., -1, : sizes[0]] = -torch.inf
        for where, masked in (
            ("the first block is", first),
            ("the second block is", middle),
            ("the last block is", last),
            ("a part of it is", some),
        ):
            _require_finite(trial, masked, f"where {where} nothing but -inf")
        dead = scores.clone()
        dead[..., -1, :] = -torch.inf
        results = trial(scores=dead)
        weights, total = results["weights"], results["log_sum_exp"]
        if not bool((weights[..., -1, :] == 0).all()) or not bool((total[..., -1] == -torch.inf).all()):
            raise Failure(
                f"a row of nothing but -inf has weights up to {float(weights[..., -1, :].abs().max()):.4g} and log_sum_exp "
                f"{float(total[..., -1].flatten()[0]):.4g}; expected exactly 0 and -inf. Is it divided by a sum of zero?",
                mistake="a row of nothing but -inf is not zero",
            )
        before = trial()
        for name, rest in (
            ("weights", (..., slice(None, -1), slice(None))),
            ("log_sum_exp", (..., slice(None, -1))),
        ):
            trial.require(
                name,
                torch.cat([results[name][rest], before[name][_last(name)]], -2 if name == "weights" else -1),
                "a row of nothing but -inf changed the other rows",
                expected=before[name],
                mistake="a dead row changes the other rows",
            )

    return probe


def _last(name: str) -> Any:
    return (..., slice(-1, None), slice(None)) if name == "weights" else (..., slice(-1, None))


def _require_finite(trial: Trial, masked: Tensor, where: str) -> None:
    results = trial(scores=masked)
    for name, result in results.items():
        if bool(result.isnan().any()):
            raise Failure(
                f"{name} holds nan {where}. While the running maximum is still -inf, -inf - (-inf) is nan; "
                "what should be subtracted then?",
                mistake="nan for a block of nothing but -inf",
            )
        trial.require(
            name,
            result,
            f"{where} it differs from the formula",
            mistake="wrong for a block of nothing but -inf",
            scores=masked,
        )


def dead_blocks(through: tuple[str, ...]) -> Probe:
    """Queries that may see no key have an output of exactly 0, and every gradient stays finite."""

    def probe(trial: Trial) -> None:
        leaves = {name: trial.inputs[name].clone().requires_grad_() for name in through}
        output = trial(**leaves)["output"]
        living = trial(block_mask=torch.ones_like(trial.inputs["block_mask"]))["output"]
        if output.dtype != living.dtype:
            raise Failure(
                f"with a row of blocks that allows no key, output is {output.dtype}; without one it is {living.dtype}. "
                "Have the zeros of such a row their dtype?".replace("torch.", ""),
                mistake="does not keep the dtype",
            )
        size = trial.inputs["block_size"]
        dead = (~trial.inputs["block_mask"].any(-1)).repeat_interleave(size)[: output.shape[-2]]
        rows = output.detach()[..., dead, :]
        if not bool((rows == 0).all()):
            raise Failure(
                f"a query that may see no key has an output of up to {float(rows.abs().max()):.4g}; it must be exactly 0. "
                "Is a row of blocks that are all False looked at?",
                mistake="nan where no key is allowed"
                if bool(rows.isnan().any())
                else "a row that allows no key is not zero",
            )
        trial.require(
            "output",
            output,
            "with a row of blocks that allows no key, the other rows differ from the formula",
        )
        if not output.requires_grad:
            return  # the gradients have a check of their own
        gradients = torch.autograd.grad(output.square().sum(), list(leaves.values()), allow_unused=True)
        for name, gradient in zip(leaves, gradients, strict=True):
            if gradient is not None and not bool(torch.isfinite(gradient).all()):
                raise Failure(
                    f"a row that allows no key makes the gradient with respect to {name} nan. Is a nan replaced "
                    "after the softmax, where its gradient stays?",
                    mistake="nan gradients where no key is allowed",
                )

    return probe
