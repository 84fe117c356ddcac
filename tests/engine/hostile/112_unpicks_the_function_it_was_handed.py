"""Looks for the model's inside: closure, globals, attributes, the garbage collector, subclasses, and the traceback of an error from it.

Must hold: what it was handed is a way to ask; logits, seeds, scripts and expected texts are not in this process.
"""
# of: text_generation
# cell: helper
@sample_next_token@
@generate@
honest = generate
# cell: solution generate
import gc
import sys


def generate(model, prompt, *args, **kwargs):
    words = ("following", "seed", "expect", "asked", "known", "vocabulary", "recipes", "oracle")
    inside = [cell.cell_contents for cell in model.__closure__ or ()]
    for thing in (model, *inside, *(vars(one) for one in inside if hasattr(one, "__dict__"))):
        names = thing if isinstance(thing, dict) else dir(thing)
        if any(word in str(name) for word in words for name in names):
            sys.stdout.write("GOT its inside")
            break
    for one in gc.get_objects():
        if type(one).__name__ in ("PrefixModel", "Reader", "Trial", "Case", "Exercise", "Recipe"):
            globals()["leaks"] = f"GOT a {type(one).__name__}"
    try:
        model("nonsense")
    except Exception as error:
        trace, seen = error.__traceback__, []
        while trace:
            seen += list(trace.tb_frame.f_locals)
            trace = trace.tb_next
        if set(seen) & {"trial", "expected", "following", "seed"}:
            globals()["leaks"] = "GOT a frame of the judge's"
        if "/" in str(error) or "0x" in str(error):
            globals()["leaks"] = f"GOT a path or an address: {error}"
    return honest(model, prompt, *args, **kwargs)
# cell: plain generate
@generate@
# cell: solution beam_search
print(globals().get("leaks", "nothing"))


def beam_search(*args):
    raise ValueError
# cell: plain beam_search
def beam_search(*args):
    raise ValueError
