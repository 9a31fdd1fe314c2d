"""The kernel's bounds, put on from the inside: folders (by the warden), limits, Landlock and seccomp (by the zygote).
Runs inside the sandbox: standard library only. Landlock's three system calls are made here because no package for it
is past its alpha; the seccomp program comes ready-made from libseccomp (see `sandbox`)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import struct
from collections.abc import Mapping, Sequence

MS_PRIVATE = 0x40000 | 0x4000  # recursively
MS_HARDENED = 0x2 | 0x4 | 0x8  # nosuid, nodev, noexec
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER, NEW_LISTENER = 1, 1 << 3
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # the same on every architecture
READ_FOLDER, READ_FILE = 0b1101, 0b0101  # execute, read a file, list a folder
DEVICE = READ_FILE | 1 << 1  # and write
MNT_DETACH = 2


def call(name: str, *arguments: object) -> int:
    """A function of the C library. Raises OSError where it returns a negative number."""
    result: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def mount_folder(path: str, options: str) -> None:
    call("mount", b"tmpfs", path.encode(), b"tmpfs", MS_HARDENED, options.encode())


def folder_options(limits: Mapping[str, int]) -> str:
    return f"size={limits['folder_bytes']},nr_inodes={limits['folder_files']},mode=0100"


def make_folders(base: str, count: int, isolated: bool, limits: Mapping[str, int]) -> None:
    """`count` folders under `base`. In a mount namespace of its own each will be a file system with a bound on its
    size, in which an unprivileged process can make nothing and list nothing: only use a folder made for it."""
    if isolated:
        call("mount", b"none", b"/", None, MS_PRIVATE, None)
        mount_folder(base, "size=64k,mode=0711")
    for index in range(count):
        os.mkdir(f"{base}/{index}", 0o700)
        if isolated:
            mount_folder(f"{base}/{index}", folder_options(limits))
    if isolated:
        os.chmod(base, 0o100)


def empty_folder(path: str, isolated: bool, limits: Mapping[str, int]) -> None:
    """Remove what a snippet left in it; a new file system where a state still holds files of the old one."""
    for name in os.listdir(path):
        try:
            os.rmdir(f"{path}/{name}")
        except NotADirectoryError:
            os.unlink(f"{path}/{name}")
        except OSError:
            shutil.rmtree(f"{path}/{name}", ignore_errors=True)
    if isolated and os.statvfs(path).f_ffree < limits["folder_files"] - 1:
        call("umount2", path.encode(), MNT_DETACH)
        mount_folder(path, folder_options(limits))


def drop_capabilities() -> None:
    """For good: with no_new_privs there is no way to get one back."""
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))


def limit_resources(processes: int, limits: Mapping[str, int]) -> None:
    """Bounds that every state inherits. That on memory is set by the manager, that on processor time by the state."""
    bounds = {"CORE": 0, "FSIZE": limits["folder_bytes"], "NOFILE": limits["open_files"], "NPROC": processes}
    bounds |= {"MEMLOCK": 0, "MSGQUEUE": 0}
    for name, bound in bounds.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))


def landlock(readable: Sequence[str], writable: str) -> bool:
    """Nothing but `readable` can be opened, nothing written but under `writable`. False: the kernel has no Landlock."""
    try:
        version = call("syscall", LANDLOCK_CREATE, None, 0, 1)
        every = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
        ruleset = call("syscall", LANDLOCK_CREATE, struct.pack("Q", every), 8, 0)
        for path in (*readable, writable):
            parent = os.open(path, os.O_PATH)
            read = READ_FOLDER if os.path.isdir(path) else DEVICE if path.startswith("/dev/") else READ_FILE
            rule = struct.pack("=Qi", every if path == writable else read, parent)
            call("syscall", LANDLOCK_ADD, ruleset, 1, rule, 0)
            os.close(parent)
        call("syscall", LANDLOCK_RESTRICT, ruleset, 0)
        os.close(ruleset)
    except OSError:
        return False
    return True


def seccomp(program: bytes) -> int:
    """Install a filter. Returns the descriptor on which the kernel asks about forks, -1 where it cannot."""
    number = {"x86_64": 317, "aarch64": 277}.get(os.uname().machine, -1)
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    try:
        return call("syscall", number, SECCOMP_SET_MODE_FILTER, NEW_LISTENER, header)
    except OSError:
        return -1
