"""Has another thread, which no observation follows, do what the exercise asks to write out.

Must hold: it earns no more than a solution that calls the forbidden function openly.
"""
# cell: solution softmax
import threading

def softmax(scores, dim=-1):
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.softmax(scores, dim)))
    thread.start()
    thread.join()
    return found[0]
# cell: plain softmax
def softmax(scores, dim=-1):
    return torch.softmax(scores, dim)
