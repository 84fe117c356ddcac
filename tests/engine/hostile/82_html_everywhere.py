"""Programs for the instructor's browser in output, in error texts, in names of exceptions, types and weights.

Must hold: they are shown as text.
"""
# cell: added
print("<script>alert('GOT')</script>", "</pre><img src=x onerror=alert('GOT')>")
# cell: added
raise type("<script>alert(1)</script>", (Exception,), {})("</pre><script>alert('GOT')</script>")
# cell: solution dot_scores
Odd = type("<img src=x onerror=alert(1)>", (), {})


def dot_scores(query, key):
    raise type("<script>", (ValueError,), {})("</pre><script>alert('GOT')</script>")
# cell: plain dot_scores
def dot_scores(query, key):
    raise ValueError
# cell: solution why_scale
why_scale = Odd()
# cell: plain why_scale
why_scale = "x"
