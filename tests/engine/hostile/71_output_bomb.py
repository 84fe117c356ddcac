"""Prints without end into memory, and then megabytes of lines and of pictures.

Must hold: what crosses is cut; the notebook stays small.
"""
# cell: added
text = "0123456789" * 100_000
for _ in range(100):
    print(text)
# cell: added
import sys

from IPython.display import publish_display_data

for _ in range(1000):
    print("x" * 1000, file=sys.stderr)
    publish_display_data({"image/png": "AAAA" * 200_000})
