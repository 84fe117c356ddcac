"""A cell that never ends and swallows every exception.

Must hold: it is killed after its time, and the reason stands in the feedback.
"""
# ends: could not be interrupted
# cell: added
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
