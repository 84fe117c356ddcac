"""Sends frames of its own in the middle of a call: calls of functions by numbers of others, results, nested ones, without end.

Must hold: a number that is not on loan reaches no function; a frame that makes no sense ends the run, and only this one.
"""
# of: text_generation
# ends: makes no sense
# cell: helper
@sample_next_token@
@generate@
honest = generate
# cell: solution generate
def generate(model, prompt, *args, **kwargs):
    caller = next(cell.cell_contents for cell in model.__closure__ if hasattr(cell.cell_contents, "ticket"))
    send, receive = caller.function.__globals__["send"], caller.function.__globals__["receive"]
    for number in range(1, 9):
        send(caller.channel, {"ticket": caller.ticket, "callback": number, "args": [], "kwargs": {}})
        receive(caller.channel, caller.limits)
    for forged in ({"args": [prompt], "kwargs": {"start": 0, "": 1}}, {"args": [], "kwargs": {}, "result": 1, "call": 7}):
        send(caller.channel, {"ticket": caller.ticket, "callback": 1, **forged})
        receive(caller.channel, caller.limits)
    send(caller.channel, {"ticket": caller.ticket, "callback": 10**6, "args": "xyz", "kwargs": [1]})
    return honest(model, prompt, *args, **kwargs)
# cell: plain generate
def generate(*args, **kwargs):
    raise ValueError
