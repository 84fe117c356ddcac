"""Each call takes almost as long as a call may.

Must hold: the time of the whole submission has a limit, too.
"""
# limit: submission=3
# ends: the submission took more than
# cell: solution dot_scores
import time


def dot_scores(query, key):
    time.sleep(1.4)
    return query @ key.transpose(-2, -1)
# cell: plain dot_scores
def dot_scores(query, key):
    return query @ key.transpose(-2, -1)
