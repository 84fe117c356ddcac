"""The Linux calls that Python does not offer: unshare, mount, pivot_root, prctl, capset, Landlock, seccomp."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Any

__all__ = [
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "bind_device",
    "bind_read_only",
    "close_from",
    "die_with_parent",
    "drop_bounding_set",
    "drop_capabilities",
    "filter_system_calls",
    "landlock_version",
    "let_go",
    "make_mounts_private",
    "mount",
    "no_new_privileges",
    "pivot",
    "read_only",
    "restrict_paths",
    "seccomp_program",
    "small_disk",
    "undumpable",
    "unshare",
]

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT = 1, 2, 4, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 4, 24, 38, 22
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2

# By machine: seccomp's architecture number, and the numbers of the system calls that are refused.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SYSTEM_CALLS: dict[str, dict[str, int]] = {
    "x86_64": dict(
        shmget=29, socket=41, clone=56, msgget=68, ptrace=101, syslog=103, personality=135, pivot_root=155,
        prctl=157, acct=163, mount=165, umount2=166, swapon=167, swapoff=168, reboot=169, sethostname=170, setdomainname=171, init_module=175, delete_module=176,
        quotactl=179, settimeofday=164, chroot=161, add_key=248, request_key=249, keyctl=250, unshare=272, move_pages=279,
        perf_event_open=298, fanotify_init=300, name_to_handle_at=303, open_by_handle_at=304, setns=308,
        process_vm_readv=310, process_vm_writev=311, kcmp=312, finit_module=313, memfd_create=319,
        kexec_file_load=320, kexec_load=246, bpf=321, userfaultfd=323, io_uring_setup=425, io_uring_enter=426, io_uring_register=427, open_tree=428,
        move_mount=429, fsopen=430, fsconfig=431, fsmount=432, fspick=433, pidfd_open=434, clone3=435,
        pidfd_getfd=438, mount_setattr=442, memfd_secret=447,
    ),
    "aarch64": dict(
        shmget=194, socket=198, clone=220, msgget=186, ptrace=117, syslog=116, personality=92, pivot_root=41,
        prctl=167, acct=89, mount=40, umount2=39, swapon=224, swapoff=225, reboot=142, sethostname=161, setdomainname=162, init_module=105, delete_module=106,
        quotactl=60, settimeofday=170, chroot=51, add_key=217, request_key=218, keyctl=219, unshare=97, move_pages=239,
        perf_event_open=241, fanotify_init=262, name_to_handle_at=264, open_by_handle_at=265, setns=268,
        process_vm_readv=270, process_vm_writev=271, kcmp=272, finit_module=273, memfd_create=279,
        kexec_file_load=294, kexec_load=104, bpf=280, userfaultfd=282, io_uring_setup=425, io_uring_enter=426, io_uring_register=427, open_tree=428,
        move_mount=429, fsopen=430, fsconfig=431, fsmount=432, fspick=433, pidfd_open=434, clone3=435,
        pidfd_getfd=438, mount_setattr=442, memfd_secret=447,
    ),
}  # fmt: skip
NEW_NAMESPACES = 0x7E020080
"""All CLONE_NEW* flags, for clone()."""

EPERM, ENOSYS, AF_UNIX = 1, 38, 1
LANDLOCK_CREATE, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT = 444, 445, 446

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: Any) -> int:
    """Call libc. Raises: OSError if it fails."""
    result: int = getattr(_libc, name)(*args)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by CLONE_NEW* `flags` for new ones."""
    _call("unshare", ctypes.c_int(flags))


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())


def make_mounts_private() -> None:
    """What is mounted from here on stays in this mount namespace."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def bind_read_only(source: str, target: str) -> None:
    """Show `source` at `target`, read-only, without set-uid programs or devices."""
    mount(source, target, "", MS_BIND | MS_REC)
    mount("none", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def bind_device(source: str, target: str) -> None:
    """Show a device file at `target`."""
    mount(source, target, "", MS_BIND)


def small_disk(target: str, size: int) -> None:
    """A tmpfs of at most `size` bytes at `target`."""
    mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"size={size},nr_inodes=4096,mode=1777")


def read_only(target: str) -> None:
    """Make a mount read-only."""
    mount("none", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def pivot(root: str, old: str) -> None:
    """Make `root` (a mount) the root of the file system; the old root is then found where `old` was below it."""
    number = {"x86_64": 155, "aarch64": 41}[platform.machine()]
    _call("syscall", ctypes.c_long(number), root.encode(), old.encode())
    os.chdir("/")


def let_go(target: str) -> None:
    """Unmount `target`, now or when nobody uses it any more."""
    _call("umount2", target.encode(), ctypes.c_int(MNT_DETACH))


def _prctl(option: int, *values: int) -> None:
    padded = [*values, 0, 0, 0, 0][:4]
    _call("prctl", ctypes.c_int(option), *(ctypes.c_ulong(value) for value in padded))


def die_with_parent(number: int = 9) -> None:
    """Get a signal (SIGKILL) when the parent dies. A change of uid clears it: call it again after one."""
    _prctl(PR_SET_PDEATHSIG, number)


def no_new_privileges() -> None:
    """Nothing that is executed from here on gains privileges."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def undumpable() -> None:
    """No other process of the same user may look into this one."""
    _prctl(PR_SET_DUMPABLE, 0)


def drop_bounding_set() -> None:
    """No program that is executed from here on can have a capability. Do it while there still are some to do it with."""
    for capability in range(64):
        try:
            _prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            continue  # the kernel does not know it


def drop_capabilities() -> None:
    """Give up every capability, for good."""
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("Ii", 0x20080522, 0)
    _call("capset", header, b"\0" * 24)


def close_from(first: int, keep: int) -> None:
    """Close every file descriptor from `first` on, except `keep`."""
    os.closerange(first, keep)
    os.closerange(max(first, keep + 1), 65_536)


def landlock_version() -> int:
    """The kernel's Landlock version; 0 where it has none."""
    result: int = _libc.syscall(ctypes.c_long(LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, result)


def restrict_paths(readable: list[str], writable: list[str]) -> bool:
    """From here on only read and execute below `readable`, do anything below `writable`, and use no TCP.

    Returns whether the kernel has Landlock. Needs no_new_privileges() before.
    """
    version = landlock_version()
    if not version:
        return False
    everything = (1 << {1: 13, 2: 14}.get(version, 15)) - 1
    reading = 1 | 4 | 8  # execute, read files, list folders
    rules = struct.pack("QQQ", everything, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}.get(version, 24)
    ruleset = _call(
        "syscall", ctypes.c_long(LANDLOCK_CREATE), rules, ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    for paths, allowed in ((readable, reading), (writable, everything)):
        for path in paths:
            if not os.path.exists(path):
                continue
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            mask = (
                allowed if os.path.isdir(path) else allowed & (1 | 2 | 4 | (1 << 14 if version >= 3 else 0))
            )
            rule = struct.pack("=Qi", mask, handle)
            _call(
                "syscall",
                ctypes.c_long(LANDLOCK_ADD_RULE),
                ctypes.c_int(ruleset),
                ctypes.c_int(1),
                rule,
                ctypes.c_uint32(0),
            )
            os.close(handle)
    _call("syscall", ctypes.c_long(LANDLOCK_RESTRICT), ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)
    return True


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


LOAD, JUMP_EQUAL, JUMP_ANY_BIT, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000


def _refuse_if(test: int, value: int, unless: bool = False) -> list[bytes]:
    """Refuse the system call if (or `unless`) its first argument passes `test` with `value`; allow it otherwise."""
    return [
        _instruction(LOAD, 16),
        _instruction(test, value, int(unless), int(not unless)),
        _instruction(RETURN, REFUSE | EPERM),
        _instruction(RETURN, ALLOW),
    ]


def seccomp_program(machine: str) -> bytes:
    """The BPF program that refuses what a worker never needs.

    Other processes' memory, mounts, namespaces, keys, BPF, io_uring, sockets other than AF_UNIX; memory that no limit
    counts (memfd, System V); and to outlive its parent (prctl PR_SET_PDEATHSIG). clone3 does not exist for it, so that
    libc uses clone, whose flags it can see.
    """
    numbers = SYSTEM_CALLS[machine]
    code = [
        _instruction(LOAD, 4),  # the architecture
        _instruction(JUMP_EQUAL, ARCHITECTURES[machine], 1, 0),
        _instruction(RETURN, KILL),
        _instruction(LOAD, 0),  # the system call
    ]
    if machine == "x86_64":
        code += [_instruction(JUMP_AT_LEAST, 0x40000000, 0, 1), _instruction(RETURN, REFUSE | EPERM)]  # x32
    for name, number in numbers.items():
        if name == "socket":
            refuse = _refuse_if(JUMP_EQUAL, AF_UNIX, unless=True)
        elif name == "prctl":
            refuse = _refuse_if(JUMP_EQUAL, PR_SET_PDEATHSIG)
        elif name == "clone":
            refuse = _refuse_if(JUMP_ANY_BIT, NEW_NAMESPACES)
        else:
            refuse = [_instruction(RETURN, REFUSE | (ENOSYS if name == "clone3" else EPERM))]
        code += [_instruction(JUMP_EQUAL, number, 0, len(refuse)), *refuse]
    code.append(_instruction(RETURN, ALLOW))
    return b"".join(code)


def filter_system_calls() -> bool:
    """Refuse the system calls that a worker never needs. Returns False where the machine's numbers are not known."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return False
    program = seccomp_program(machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    holder = ctypes.create_string_buffer(pointer, len(pointer))
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(holder))
    return True
