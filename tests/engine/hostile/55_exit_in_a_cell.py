"""Ends the process with status 0, as if all were well.

Must hold: what remains scores nothing, with the reason.
"""
# ends: ended itself with exit status 0
# cell: added
import os

os._exit(0)
