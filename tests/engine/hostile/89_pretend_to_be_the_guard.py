"""Leaves with the exit statuses that mean something to the grader, after a child has been killed in all ways.

Must hold: a status is the student's own, and no status makes it the machine's fault.
"""
# ends: ended itself with exit status
# cell: added
import os
import signal

for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGXCPU):
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), number)
        os._exit(0)
    os.waitpid(child, 0)
os._exit(193)
