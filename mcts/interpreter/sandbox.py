"""How the server is started: the command line, the seccomp program, and what this machine cannot offer."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from mcts.interpreter.contract import InterpreterError
from mcts.interpreter.process import PACKET_BYTES, Gone, Process, readable
from mcts.interpreter.values import NO_VALUES

# A call that is not named here fails with "Operation not permitted". Left out on purpose: signals to processes,
# tracing, other processes' memory and limits, sockets that connect, shared memory, programs, mounts, namespaces,
# permissions and links of files, and everything that only a kernel developer has heard of.
ALLOWED_CALLS = """
access alarm arch_prctl brk chdir clock_getres clock_gettime clock_nanosleep close close_range copy_file_range dup dup2
dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 exit exit_group faccessat
faccessat2 fadvise64 fallocate fchdir fdatasync flock fstat fstatfs fsync ftruncate futex futex_waitv getcpu getcwd
getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getrandom getresgid
getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid lseek lstat madvise membarrier
mincore mkdir mkdirat mprotect mremap msync munmap nanosleep newfstatat open openat pause pipe pipe2 poll ppoll
pread64 preadv pselect6 pwrite64 pwritev read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg rename
renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend
rt_sigtimedwait select sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min
sched_yield sendfile sendmmsg sendmsg sendto setitimer setrlimit set_robust_list set_tid_address shutdown sigaltstack
signalfd4 socketpair stat statfs statx sysinfo time times truncate uname unlink unlinkat utimensat wait4 waitid write
writev
"""
ALLOWED_ARGUMENTS = (  # call, position of the argument, values
    ("fcntl", 1, (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)),  # F_DUPFD … F_SETLKW, F_DUPFD_CLOEXEC, F_GETPIPE_SZ
    ("ioctl", 1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIO(N)CLEX
    ("prctl", 0, (15, 16)),  # the name of a thread
    ("prlimit64", 0, (0,)),  # its own limits
)
MAP_SHARED = 1
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # the same in every run, as the seeds of `random` are
    "OPENBLAS_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
}
ISOLATIONS = ("bubblewrap", "unshare", "none")  # from best to worst
FOLDER = "/folders"  # of the writable folders, under bubblewrap
PYTHON_OPTIONS = ("-s", "-S", "-P", "-B")
SOURCES = ("fences", "observation", "confine", "heap", "values", "server")
BOOT = """
import builtins, json, os, socket, sys, types
register, os.register_at_fork = os.register_at_fork, lambda **hooks: None
import random  # it would reseed itself in every child
os.register_at_fork = register
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, int(sys.argv[1]))
settings = json.loads(control.recv(200000))
sys.argv, sys.path[:] = [""], settings["path"]
for name, source in settings.pop("sources").items():
    module = sys.modules[name] = types.ModuleType(name)
    vars(module)["__builtins__"] = dict(vars(builtins))  # a snippet may patch those of everybody else
    exec(compile(source, "<" + name + ">", "exec"), vars(module))
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
module.main(control, settings)
"""


def seccomp_program() -> str:
    """The filter in the kernel's form, in hexadecimal; "" without libseccomp."""
    try:
        import pyseccomp as seccomp
    except (ImportError, OSError, RuntimeError, TypeError):
        return ""
    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    wanted: list[tuple[Any, ...]] = [(seccomp.ALLOW, name) for name in ALLOWED_CALLS.split()]
    for name, position, values in ALLOWED_ARGUMENTS:
        wanted += [(seccomp.ALLOW, name, seccomp.Arg(position, seccomp.MASKED_EQ, 0xFFFFFFFF, v)) for v in values]
    wanted += [(seccomp.ALLOW, "mmap", seccomp.Arg(3, seccomp.MASKED_EQ, MAP_SHARED, 0))]  # else siblings share it
    wanted += [(seccomp.NOTIFY, "clone"), (seccomp.ERRNO(errno.ENOSYS), "clone3")]  # the C library falls back on clone
    for action, name, *condition in wanted:
        with contextlib.suppress(OSError, ValueError):  # an architecture without such a call needs none
            rules.add_rule(action, name, *condition)
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read().hex()


def python_path() -> list[str]:
    """The folders that Python imports from: its own library and the installed packages, nothing of the project."""
    standard = sysconfig.get_path("stdlib")
    packages = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    packages += [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return [path for path in dict.fromkeys([standard, f"{standard}/lib-dynload", *packages]) if Path(path).is_dir()]


def system_paths() -> list[str]:
    """What a Python process reads besides its packages."""
    paths = [sys.base_prefix, "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    return [path for path in paths if os.path.exists(path)]


def bubblewrap(path: list[str]) -> tuple[list[str], list[str]]:
    """The command in front of Python's, and `path` as it is called inside: packages move away from the project."""
    inside, binds = [], ["--dir", FOLDER]
    for index, folder in enumerate(path):
        moved = folder if folder.startswith(sys.base_prefix + "/") else f"/packages/{index}"
        inside.append(moved)
        binds += [] if moved == folder else ["--ro-bind", folder, moved]
    for parent in reversed(Path(sys.base_prefix).parents[:-1]):
        binds += ["--perms", "0111", "--dir", str(parent)]
    for name in system_paths():
        linked = os.path.islink(name) and len(Path(name).parts) == 2
        binds += ["--symlink", os.readlink(name), name] if linked else ["--ro-bind", name, name]
    for name in DEVICES:
        binds += ["--dev-bind", name, name]
    capabilities = ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_DAC_OVERRIDE"]
    identity = ["--unshare-user", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    unshare = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    life = ["--die-with-parent", "--as-pid-1", "--chdir", "/", "--remount-ro", "/"]
    return ["bwrap", *identity, *unshare, *capabilities, *binds, *life], inside


def unshare(path: list[str]) -> tuple[list[str], str]:
    """The command in front of Python's without bubblewrap, and a folder to mount on: one that exists unneeded."""
    free = (name for name in ("/media", "/mnt", "/srv", "/opt") if os.path.isdir(name))
    needed = [f"{name}/" for name in (*path, *system_paths())]
    folder = next((name for name in free if not any(name.startswith(f"{name}/") for name in needed)), "/media")
    own = ("--user", "--map-root-user", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child")
    return ["unshare", *own], folder


class Server:
    """The running server, seen from outside."""

    def __init__(self, settings: dict[str, Any], isolation: str) -> None:
        """Start it; `greeting` tells when it serves. isolation: bubblewrap, unshare, none or off. settings["preload"]:
        the modules of each zygote, by its name."""
        command: list[str] = []
        path, folder = python_path(), FOLDER
        if isolation == "bubblewrap":
            command, path = bubblewrap(path)
        elif isolation == "unshare":
            command, folder = unshare(path)
        if command and shutil.which(command[0]) is None:
            raise InterpreterError("not installed")
        command[:1] = [shutil.which(name) or name for name in command[:1]]
        self.control, control_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channels = {kind: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for kind in settings["preload"]}
        self.zygotes = {kind: Process(ours) for kind, (ours, _) in channels.items()}
        self.names = [""] * settings["slots"]  # of the folders in them, a secret
        self.owner = os.getpid()
        landlock = [*system_paths(), *path, *DEVICES] if isolation in ("unshare", "none") else []
        settings = {**settings, "isolation": isolation, "path": path, "folder": folder, "landlock": landlock}
        ends = {kind: end.fileno() for kind, (_, end) in channels.items()}
        self.control.send(json.dumps({**settings, "sources": sources(), "zygotes": ends}).encode())
        self.popen = subprocess.Popen(
            [*command, os.path.realpath(sys.executable), *PYTHON_OPTIONS, "-c", BOOT, str(control_end.fileno())],
            pass_fds=(control_end.fileno(), *ends.values()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        control_end.close()
        for _, end in channels.values():
            end.close()

    async def greeting(self) -> list[str]:
        """Wait until the server serves. Returns what it could not set up; raises InterpreterError with its reason."""
        await readable(self.control)
        if not (data := self.control.recv(PACKET_BYTES)):
            assert self.popen.stderr is not None
            lines = self.popen.stderr.read().decode(errors="replace").strip().splitlines()
            raise InterpreterError(lines[-1] if lines else "it ended without a word")
        self.folder: str
        missing: list[str]
        self.folder, missing = json.loads(data)
        for zygote in self.zygotes.values():
            await zygote.receive()
        for slot in range(len(self.names)):
            self.prepare(slot)
        return missing

    def prepare(self, slot: int) -> None:
        """Have the warden empty a slot's folder, and make the one in it that the next snippet finds."""
        self.names[slot] = secrets.token_hex(8)
        with contextlib.suppress(Gone):
            self.order({"slot": slot, "name": self.names[slot]})

    def request(self, code: str | None, slot: int, values: bytes = NO_VALUES) -> dict[str, str | None]:
        """A snippet with variables that are added to the state's; None: go on as a host of states that are values."""
        return {"code": code, "folder": f"{self.folder}/{slot}/{self.names[slot]}", "values": values.hex()}

    def order(self, command: dict[str, Any]) -> None:
        """Tell the warden. Raises Gone."""
        try:
            self.control.send(json.dumps(command).encode())
        except OSError as error:
            raise Gone from error

    def close(self) -> None:
        """End every process of the server and wait for that."""
        if self.owner != os.getpid():
            return  # a fork of the engine's process: not its server
        for zygote in self.zygotes.values():
            zygote.channel.close()
        self.control.close()
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        if self.popen.stderr is not None:
            self.popen.stderr.close()


def sources() -> dict[str, str]:
    """The modules that run inside, by name, in the order in which they need each other."""
    folder = Path(__file__).parent
    inside = {f"mcts.interpreter.{name}": (folder / f"{name}.py").read_text(encoding="utf-8") for name in SOURCES}
    return {"mcts": "", "mcts.interpreter": "", **inside}
