"""A thread that patches comparisons again every millisecond, in case somebody restores them.

Must hold: the judge has no such thread, and the worker's dies with it.
"""
# cell: added
import threading
import time

import torch


def patch():
    while True:
        torch.allclose = torch.equal = lambda *args, **kwargs: True
        torch.Tensor.__eq__ = lambda self, other: True
        time.sleep(0.001)


threading.Thread(target=patch, daemon=True).start()
threading.Thread(target=patch, daemon=False).start()
