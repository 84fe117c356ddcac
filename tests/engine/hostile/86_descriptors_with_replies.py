"""Sends a hundred open files along with every answer, to fill the judge's table of files.

Must hold: the judge takes none of them. (Its open files are counted after each of these tests.)
"""
# cell: added
import os
import signal
import socket

loop = signal.getsignal(signal.SIGALRM).__globals__
real_send = loop["send"]


class Channel:
    def __init__(self, channel):
        self.channel = channel

    def settimeout(self, seconds):
        self.channel.settimeout(seconds)

    def sendall(self, data):
        files = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
        socket.send_fds(self.channel, [data[:1]], files)
        self.channel.sendall(data[1:])
        for file in files:
            os.close(file)


loop["send"] = lambda channel, *args: real_send(Channel(channel), *args)
