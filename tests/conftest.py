"""For all tests: one thread for each process that computes.

They run on all cores at once, and start kernels, judges and workers of their own. Where two processes with a thread for
each core share the cores, torch is many times slower, and deadlines pass. (Set before anything imports torch.)
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRITON_INTERPRET", "1")  # (kernels run without a GPU; read when Triton is imported)
