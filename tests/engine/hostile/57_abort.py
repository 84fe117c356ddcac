"""Aborts.

Must hold: what remains scores nothing, with the reason.
"""
# ends: the process ended
# cell: added
import os

os.abort()
