"""Connects to Unix sockets of the outside: abstract ones, and those of daemons.

Must hold: abstract names end at the network namespace, and no socket file is in the jail.
"""
# cell: added
import socket

for name in ("\0@SOCKET@", "@COURSE@/socket", "/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket",
             "/run/systemd/private", "/dev/log", "\0/tmp/.X11-unix/X0", "/tmp/.X11-unix/X0"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as made:
            try:
                made.connect(name)
                made.send(b"hello")
                print("GOT", name)
            except OSError:
                pass
