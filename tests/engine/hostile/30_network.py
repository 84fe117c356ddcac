"""Sends what it has to a listener on loopback, asks DNS, opens raw and netlink sockets.

Must hold: there is no network, not even loopback.
"""
# cell: added
import socket
import urllib.request

for family, kind in (
    (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_INET6, socket.SOCK_STREAM),
    (socket.AF_INET, socket.SOCK_RAW), (socket.AF_NETLINK, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW),
    (socket.AF_VSOCK, socket.SOCK_STREAM), (socket.AF_ALG, socket.SOCK_SEQPACKET),
):
    try:
        made = socket.socket(family, kind)
        print("GOT", family, kind)
        made.connect(("127.0.0.1", int("@PORT@")))
        made.sendall(b"hello")
    except (OSError, TypeError):
        pass
try:
    print("GOT", socket.getaddrinfo("localhost", 80), socket.gethostbyname("example.org"))
except OSError:
    pass
try:
    print("GOT", urllib.request.urlopen("http://127.0.0.1:@PORT@/", timeout=1).read())
except OSError:
    pass
