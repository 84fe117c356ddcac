"""Sends every signal to itself, its parent, its group, and everybody.

Must hold: nobody outside hears it. (Process 1 of a pid namespace is deaf to most of its own.)
"""
# cell: added
import os
import signal

if os.getpid() != 1:
    raise SystemExit("not in a pid namespace: it would be heard")
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM, signal.SIGPIPE):
    signal.signal(number, signal.SIG_IGN)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGSTOP, signal.SIGKILL):
    for target in (0, -1, os.getppid(), -os.getpgrp(), @JUDGE@, -@JUDGE@, 2, 3):
        try:
            os.kill(target, number)
        except OSError:
            pass
signal.signal(signal.SIGALRM, signal.SIG_DFL)
