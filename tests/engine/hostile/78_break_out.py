"""Asks the kernel for more: root, namespaces, mounts, another root, modules, keys, other processes.

Must hold: every one of these calls is refused.
"""
# cell: added
import ctypes
import os
import subprocess

libc = ctypes.CDLL(None, use_errno=True)
attempts = {
    "setuid": lambda: os.setuid(0), "setgroups": lambda: os.setgroups([0]), "chroot": lambda: os.chroot("/"),
    "unshare": lambda: libc.unshare(0x10000000) and 1 / 0, "setns": lambda: libc.setns(0, 0) and 1 / 0,
    "mount": lambda: libc.mount(b"none", b"/scratch", b"tmpfs", 0, b"") and 1 / 0,
    "remount": lambda: libc.mount(b"none", b"/", b"", 32, b"") and 1 / 0, "umount": lambda: libc.umount2(b"/scratch", 2) and 1 / 0,
    "ptrace": lambda: libc.ptrace(16, 1, 0, 0) and 1 / 0, "pidfd": lambda: os.pidfd_open(os.getpid()),
    "keyctl": lambda: libc.syscall(250, 0, -3, 1) < 0 and 1 / 0, "bpf": lambda: libc.syscall(321, 0, 0, 0) and 1 / 0,
    "io_uring": lambda: libc.syscall(425, 1, 0) < 0 and 1 / 0, "userfaultfd": lambda: libc.syscall(323, 0) < 0 and 1 / 0,
    "perf": lambda: libc.syscall(298, 0, 0, -1, -1, 0) < 0 and 1 / 0, "sethostname": lambda: libc.sethostname(b"x", 1) and 1 / 0,
    "mknod": lambda: os.mknod("device", 0o60666, os.makedev(8, 0)), "nice": lambda: os.nice(-10),
    "setxattr": lambda: os.setxattr("/", "trusted.x", b"1"), "link": lambda: os.link("/usr/bin/env", "env"),
    "su": lambda: subprocess.run(["su", "-c", "true"], check=True, capture_output=True, stdin=subprocess.DEVNULL),
    "unshare -r": lambda: subprocess.run(["unshare", "-r", "true"], check=True, capture_output=True),
    "rlimit": lambda: __import__("resource").setrlimit(7, (100_000, 100_000)),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print("GOT", name)
    except (OSError, ZeroDivisionError, subprocess.SubprocessError, ValueError):
        pass
