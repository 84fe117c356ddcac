"""Prints and raises what moves a terminal's cursor, renames its window, starts a formula, or is half a character.

Must hold: what comes out is plain text that every file can hold.
"""
# cell: added
print("\x1b[2J\x1b]0;GOT\x07 \x9b31m \u202e \x00 \ud800 \x08\x08\x08 \r overwritten \x1bPq#0~\x1b\\")
# cell: added
raise ValueError("=cmd|' /C calc'!A0 \x1b[31m \ud800 \x00")
# cell: solution dot_scores
def dot_scores(query, key):
    raise ValueError("=HYPERLINK(\"http://x\") \x1b]0;GOT\x07\ud800\x00\x9b\n\nsecond line")
# cell: plain dot_scores
def dot_scores(query, key):
    raise ValueError
# cell: solution why_scale
why_scale = "\x1b]0;GOT\x07\ud800<script>alert(1)</script>"
# cell: plain why_scale
why_scale = "x"
