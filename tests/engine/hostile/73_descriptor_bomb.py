"""Opens files until there are no more, and keeps them open.

Must hold: the worker needs none to answer; the honest answers keep their points.
"""
# cell: added
kept = []
try:
    while True:
        kept.append(open("/dev/null"))
except OSError:
    pass
