"""Keeps every model that it was handed: calls it from later cells, from another exercise's check, from threads.

Must hold: a function answers during the check that it was made for, in the thread that the check runs in.
"""
# of: text_generation
# cell: helper
@sample_next_token@
@generate@
@beam_search@
honest, search, kept = generate, beam_search, []
# cell: solution generate
import threading

import torch


def try_all():
    for model in kept:
        try:
            model(torch.tensor([0, 1]))
            print("GOT an answer")
        except RuntimeError:
            pass


def generate(model, prompt, *args, **kwargs):
    kept.append(model)
    thread = threading.Thread(target=try_all)
    thread.start()
    thread.join()
    return honest(model, prompt, *args, **kwargs)
# cell: plain generate
@generate@
# cell: solution beam_search
try_all()


def beam_search(model, *args):
    try_all()
    return search(model, *args)
# cell: plain beam_search
@beam_search@
