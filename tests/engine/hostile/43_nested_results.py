"""Functions return nested, cyclic, endless and enormous containers.

Must hold: they cross in part or not at all; the checks that see them fail.
"""
# cell: solution dot_scores
count = 0


def dot_scores(query, key):
    global count
    count += 1
    nested = []
    for _ in range(1000):
        nested = [nested]
    cyclic = []
    cyclic.append(cyclic)
    wide = [[query] * 9] * 9
    return [nested, cyclic, wide, {"a": cyclic}, tuple(range(10_000)), range(10**12)][count % 6]
# cell: plain dot_scores
def dot_scores(query, key):
    return None
