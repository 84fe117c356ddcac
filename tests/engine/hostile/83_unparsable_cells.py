"""Cells that break parsers: thousands of signs, lambdas, attributes and parentheses, a NUL, a lone surrogate.

Must hold: whoever parses them in the grader survives it.
"""
# cell: added
x = @MINUSES@1
# cell: added
x = @LAMBDAS@1
# cell: added
x@ATTRIBUTES@
# cell: added
x = @PARENTHESES@
# cell: added
x = "@NUL@"
# cell: added
x = "@SURROGATE@"
