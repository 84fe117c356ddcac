"""In the jail, too, it is seen whether a call writes into tensors that it is handed in a tuple or a list."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autograder.engine.dialogue import Worker
from autograder.engine.nursery import Limit, Nursery
from autograder.engine.proxies import resolve
from autograder.exercises import find
from autograder.grading import examine
from solutions import efficient_attention
from tests.engine.scenes import JAIL

STATE_OVERWRITTEN = """
right = causal_linear_attention
def wrong(query, key, value, state=None):
    output, new = right(query, key, value, state)
    if state is not None:
        state[0].detach().copy_(new[0].detach())
    return output, new
"""
LIST_CHANGED = """
right = online_softmax
def wrong(blocks):
    weights, log_sum_exp = right(list(blocks))
    blocks[-1] = weights[-1]
    return weights, log_sum_exp
"""


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Nursery(jail=JAIL) as nursery:
        worker = nursery.worker(Limit())
        yield worker
        worker.close()


@pytest.mark.parametrize(
    ("name", "text"), [("causal_linear_attention", STATE_OVERWRITTEN), ("online_softmax", LIST_CHANGED)]
)
def test_what_is_handed_in_a_tuple_or_list_must_stay_as_it_is(worker: Worker, name: str, text: str) -> None:
    with open(str(efficient_attention.__file__), encoding="utf-8") as file:
        source = file.read()
    assert worker.ask("run", source=source + text)["error"] is None
    for made, named in ((name, ()), ("wrong", ("changes its inputs in place",))):
        assert examine(find(name), resolve(worker, made), 5, patient=True).mistakes == named
