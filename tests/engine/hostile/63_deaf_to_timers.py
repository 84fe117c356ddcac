"""Blocks signals, takes their handlers away, and sleeps in a call, starting again whenever it is woken.

Must hold: the judge's own clock ends it.
"""
# ends: could not be interrupted
# cell: solution dot_scores
import signal
import time


def dot_scores(query, key):
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer = signal.signal = lambda *args: None
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass
# cell: plain dot_scores
def dot_scores(query, key):
    raise ValueError
