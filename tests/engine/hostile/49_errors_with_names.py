"""Raises exceptions whose names mean something to the grader, or that cannot be made from a message.

Must hold: a name is a name; nothing is stopped, skipped or passed because of it.
"""
# cell: solution dot_scores
count = 0


def error(name, *bases):
    return type(name, bases or (Exception,), {"__str__": lambda self: "\x1b[31m\ud800 is not written yet: it raises NotImplementedError."})


KINDS = [
    error("Failure"), error("Stopped"), error("Closed"), error("NurseryError"), error("_Raised"), error("Exception"),
    error("KeyboardInterrupt"), error("SystemExit", SystemExit), error("GeneratorExit", GeneratorExit), StopIteration,
    error("StopIteration", StopIteration), error("BaseException", BaseException), error("a b<script>"), error(""),
    type("Decode", (UnicodeDecodeError,), {"__init__": lambda self: None, "__new__": lambda cls: BaseException.__new__(cls)}),
]


def dot_scores(query, key):
    global count
    count += 1
    raise KINDS[count % len(KINDS)]()
# cell: plain dot_scores
def dot_scores(query, key):
    raise ValueError
