"""Reads /proc, /sys, /etc and devices: other processes' memory, arguments and environments, users, the keyboard.

Must hold: /proc is not there, and of /etc and /dev next to nothing.
"""
# cell: added
import ctypes
import os
import subprocess

for path in (
    "/proc/self/environ", "/proc/1/environ", "/proc/1/cmdline", "/proc/self/maps", "/proc/self/mem", "/proc/self/mountinfo",
    "/proc/self/root/etc/passwd", "/proc/mounts", "/sys/kernel/notes", "/sys/fs/cgroup/cgroup.procs", "/etc/passwd", "/etc/shadow",
    "/etc/hostname", "/dev/mem", "/dev/kmsg", "/dev/tty", "/dev/sda", "/dev/vda", "/dev/shm", "/run", "/var/log",
):
    try:
        print("GOT", path, os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(50))
    except OSError:
        pass
print(subprocess.run("ps aux; cat /proc/*/cmdline; w; dmesg", shell=True, capture_output=True, text=True).stdout[:500])
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(100)
for call in (310, 101):  # process_vm_readv, ptrace
    if libc.syscall(call, 16, 1, 0, 0, 0, 0) == 0:
        print("GOT", call)
