"""A single step of Python that never ends: no handler of a signal ever runs.

Must hold: the judge's own clock ends it.
"""
# ends: could not be interrupted
# cell: added
import itertools

sum(itertools.repeat(0))
