"""Exceptions whose text raises, never ends, or is a gigabyte; whose names are pages; that replace themselves.

Must hold: the judge is told something short.
"""
# cell: added
class Lying(Exception):
    def __str__(self):
        raise self

    __repr__ = __str__


raise Lying()
# cell: added
class Long(Exception):
    def __str__(self):
        return "<script>alert('GOT')</script>" * 1_000_000


raise Long()
# cell: solution dot_scores
Named = type("N" * 100_000, (Exception,), {"__str__": lambda self: 5})


def dot_scores(query, key):
    raise Named
# cell: plain dot_scores
def dot_scores(query, key):
    raise ValueError
