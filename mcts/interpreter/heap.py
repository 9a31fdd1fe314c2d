"""Preloaded modules in memory that a fork does not copy. Runs inside the sandbox: standard library only.

A fork copies the page tables of anonymous memory: 50 MB of sympy cost a millisecond each time. Pages of a file that is
mapped privately are found again by whoever touches them. So the modules are loaded into a mapping of a file in
memory that is shared while it fills, and is mapped again, privately, when it is full: the contents stay as they are.
Not covered: C libraries other than glibc and kernels that refuse such a file (nothing is shared there), and the
libraries' own data.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
from collections.abc import Iterator

RESERVED_BYTES = 256 << 20  # of addresses; modules beyond it are loaded into ordinary memory
SLACK_BYTES = 16 << 20  # what the heap may have unused before; with more of it, nothing is shared
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
MAP_FIXED = 0x10
SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Allocator(ctypes.Structure):
    """`PyObjectArenaAllocator`: from where Python's small objects get their memory."""

    _fields_ = (("context", ctypes.c_void_p), ("allocate", ctypes.c_void_p), ("free", ctypes.c_void_p))


def library() -> ctypes.CDLL:
    """The C library with the types of what is used here. Raises AttributeError where it is not glibc."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018  # glibc's own
    word = ctypes.c_size_t
    libc.malloc.argtypes, libc.free.argtypes, libc.sbrk.argtypes = [word], [word], [ctypes.c_ssize_t]
    libc.mmap.argtypes = [word, word, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.malloc.restype = libc.sbrk.restype = libc.mmap.restype = word
    return libc


def map_file(libc: ctypes.CDLL, start: int, end: int, kind: int, file: int) -> None:
    """Raises OSError."""
    access = mmap.PROT_READ | mmap.PROT_WRITE
    if libc.mmap(start, end - start, access, kind | MAP_FIXED, file, 0) != start:
        raise OSError(ctypes.get_errno(), "mmap")


@contextlib.contextmanager
def shared_heap() -> Iterator[None]:
    """What the body allocates, children find without a copy. No thread may run, and the body may not fork."""
    try:
        libc, file = library(), os.memfd_create("preloaded", os.MFD_ALLOW_SEALING)
    except (AttributeError, OSError):
        yield
        return
    usual = Allocator()
    ctypes.pythonapi.PyObject_GetArenaAllocator(ctypes.byref(usual))
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)  # everything from the heap, which keeps what it has
    libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    start = -(-libc.sbrk(0) // mmap.PAGESIZE) * mmap.PAGESIZE
    libc.free(libc.malloc(RESERVED_BYTES + SLACK_BYTES))  # the heap grows by as much, of which nothing is used
    os.ftruncate(file, RESERVED_BYTES)
    shared = libc.sbrk(0) - start >= RESERVED_BYTES
    if shared:
        map_file(libc, start, start + RESERVED_BYTES, mmap.MAP_SHARED, file)
    # realloc(NULL, size) is malloc(size); abs(NULL) does nothing: what the body frees is little
    heap = Allocator(None, *(ctypes.cast(function, ctypes.c_void_p).value for function in (libc.realloc, libc.abs)))
    ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(heap))
    try:
        yield
    finally:
        ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(usual))
        libc.mallopt(M_MMAP_THRESHOLD, 4 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 8 << 20)
        libc.malloc_trim(0)  # gives the unused rest back, addresses and all
        end = min(libc.sbrk(0) // mmap.PAGESIZE * mmap.PAGESIZE, start + RESERVED_BYTES)
        if shared and start < end:
            map_file(libc, start, end, mmap.MAP_PRIVATE, file)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALED)  # refused while anything can still be written through it
        os.close(file)
