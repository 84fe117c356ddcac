"""A function that never ends, but can be interrupted.

Must hold: the check fails, the rest of the exercise is not tried, other exercises are.
"""
# cell: solution dot_scores
def dot_scores(query, key):
    while True:
        pass
# cell: plain dot_scores
def dot_scores(query, key):
    raise ValueError
