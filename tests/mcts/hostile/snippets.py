"""Snippets that mean harm, or do it by accident: category → name → (what the observation must match, code).

`TIME` marks those that end at the time limit, `DEAD` those whose process ends before its snippet does.
"""

TIME = r"TimeoutError: .*longer than"
DEAD = r"ProcessError: "
DENIED = r"(PermissionError|OSError|BlockingIOError).*(not permitted|denied)"
SYSCALL = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"

HOSTILE: dict[str, dict[str, tuple[str, str]]] = {
    "endless loops": {
        "in Python": (TIME, "while True: pass"),
        "that swallows exceptions": (
            TIME,
            "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        ),
        "in a huge power": (TIME, "x = 7 ** 10 ** 9"),
        "in the digits of a huge integer": (TIME, "n = 3 ** 20_000_000\nprint(n)"),
        "in a regular expression": (TIME, "import re\nre.match('(a+)+$', 'a' * 64 + 'b')"),
        "in sleep": (TIME, "import time\ntime.sleep(1e6)"),
        "in sympy": (TIME, "import sympy\nsympy.factorint(sympy.nextprime(10**40) * sympy.nextprime(10**41))"),
        "in a lock": (TIME, "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"),
        "in an iterator in C": (TIME, "10**20 in iter(int, 1)"),
        "in a trace function": (TIME, "import sys\ndef trace(*_):\n    while True: pass\nsys.setprofile(trace)"),
        "in a destructor": (
            TIME,
            "class A:\n    def __del__(self):\n        while True: pass\na = A()\ndel a\nwhile True: pass",
        ),
        "in repr": (TIME, "class A:\n    def __repr__(self): return str(10**20 in iter(int, 1))\nprint(A())"),
    },
    "signals": {
        "ignores them all and loops": (
            TIME,
            "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
            "    except (OSError, ValueError): pass\nwhile True: pass",
        ),
        "kills its parent": (DENIED, "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"),
        "kills its group": (DENIED, "import os, signal\nos.killpg(0, signal.SIGKILL)"),
        "kills everybody": (DENIED, "import os, signal\nos.kill(-1, signal.SIGKILL)"),
        "kills the first process": (DENIED, "import os, signal\nos.kill(1, signal.SIGKILL)"),
        "through the owner of a pipe": (
            DENIED,
            "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, 8, os.getppid())\nfcntl.fcntl(r, 10, 9)",
        ),
        "by limits of another process": (
            DENIED,
            "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
        ),
        "wakes itself by a timer": (
            "^1$",
            "import signal\nsignal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(0, 0.01, 0.01)\n1",
        ),
        "an alarm": (DEAD + ".*SIGALRM", "import signal, time\nsignal.alarm(1)\ntime.sleep(1e6)"),
        "stops itself": (TIME + "|" + DENIED, "import signal\nsignal.raise_signal(signal.SIGSTOP)"),
    },
    "recursion": {
        "without end": ("RecursionError", "def f(): return f()\nf()"),
        "of the C stack": (
            DEAD + "|" + TIME,
            "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
        ),
        "without a limit": (
            "MemoryError|ProcessError|TimeoutError",
            "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
        ),
        "of the parser": ("Error", "eval('(' * 5000 + ')' * 5000)"),
        "in repr": ("RecursionError", "x = []\nfor _ in range(100_000): x = [x]\nprint(x)"),
    },
    "memory": {
        "bomb of bytes": ("MemoryError", "x = bytearray(1 << 40)"),
        "bomb of lists": (
            "MemoryError|ProcessError|TimeoutError",
            "x = []\nwhile True: x.append(bytearray(1 << 24))",
        ),
        "bomb of numpy": ("MemoryError", "import numpy as np\nx = np.ones((1 << 17, 1 << 17))"),
        "bomb of strings": ("MemoryError", "print('a' * (1 << 36))"),
        "bomb of mappings": (
            "OSError|MemoryError",
            "import mmap\nx = [mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE) for _ in range(64)]",
        ),
        "bomb of numpy, in pieces": (
            "MemoryError|ProcessError|TimeoutError",
            "import numpy as np\nx = []\nwhile True: x.append(np.ones(1 << 22))",
        ),
        "bomb that swallows exceptions": (
            "TimeoutError|ProcessError",
            "x = []\nwhile True:\n    try:\n        while True: x.append(bytearray(1 << 20))\n"
            "    except MemoryError: pass",
        ),
        "wipes the preloaded modules": (
            DEAD,
            SYSCALL + "import sympy\nat = id(sympy.Symbol.__dict__) & ~0xFFFFF\n"
            "ctypes.memset(at, 255, 1 << 20)\nsympy.Symbol('x')",
        ),
        "drops them from what it passes on": (
            "^0$",
            SYSCALL
            + "import sympy\nlibc.madvise(ctypes.c_void_p(id(sympy.Symbol) & ~4095), ctypes.c_size_t(4096), 10)",
        ),
    },
    "processes and threads": {
        "forks": (DENIED, "import os\nos.fork()"),
        "fork bomb": (DEAD, "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"),
        "runs a program": (DENIED, "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'sleep 1000 &'])"),
        "becomes a program": ("(PermissionError|FileNotFoundError)", "import os\nos.execv('/bin/sh', ['sh'])"),
        "through os.system": ("^(-1|32512)$", "import os\nos.system('sleep 1000 &')"),
        "through multiprocessing": ("Error", "import multiprocessing as m\nm.Process(target=print).start()"),
        "leaves a daemon": (DENIED, "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass"),
        "thread bomb": (
            "RuntimeError: can't start new thread|TimeoutError|ProcessError",
            "import threading, time\n"
            "while True: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
        ),
        "thread that outlives it": (
            "^started$",
            "import threading\ndef spin():\n    while True: pass\n"
            "threading.Thread(target=spin, daemon=True).start()\nprint('started')",
        ),
        "vfork by hand": (DENIED, SYSCALL + "if libc.vfork() < 0: raise OSError(ctypes.get_errno(), 'not permitted')"),
        "posix_spawn": (DENIED, "import os\nos.posix_spawn('/bin/sh', ['sh', '-c', 'sleep 1000'], {})"),
        "a pool of processes": (
            "Error",
            "from concurrent.futures import ProcessPoolExecutor as Pool\n"
            "with Pool(2) as pool: list(pool.map(abs, [1, 2]))",
        ),
        "thread bomb by hand": (
            "Error",
            "import _thread, time\nwhile True: _thread.start_new_thread(time.sleep, (1000,))",
        ),
        "clone by number": (
            "^-1$",
            SYSCALL + "libc.syscall({'x86_64': 56}.get(__import__('os').uname().machine, 220), 17, 0, 0, 0, 0)",
        ),
        "a namespace by clone": (
            "^-1$",
            SYSCALL + "libc.syscall({'x86_64': 56}.get(__import__('os').uname().machine, 220), 0x10000011, 0, 0, 0, 0)",
        ),
    },
    "ends its process": {
        "os._exit": (DEAD + ".*exit status 3", "import os\nprint('lost')\nos._exit(3)"),
        "sys.exit": ("SystemExit: 3", "import sys\nsys.exit(3)"),
        "quit": ("SystemExit", "quit()"),
        "abort": (DEAD, "import os\nos.abort()"),
        "null pointer": (DEAD + ".*SIGSEGV", "import ctypes\nctypes.string_at(0)"),
        "broken bytecode": (DEAD, "f = lambda: 0\nf.__code__ = f.__code__.replace(co_code=b'\\xff' * 100)\nf()"),
        "os._exit in a thread": (
            DEAD + ".*exit status 3",
            "import os, threading, time\nthreading.Thread(target=os._exit, args=(3,)).start()\ntime.sleep(1e6)",
        ),
        "os._exit in a thread, later": (
            "^fine$",
            "import os, threading\nthreading.Timer(0.2, os._exit, (3,)).start()\nprint('fine')",
        ),
        "a watchdog": (
            DEAD,
            "import faulthandler, time\nfaulthandler.dump_traceback_later(0.5, exit=True)\ntime.sleep(1e6)",
        ),
        "numpy beyond its array": (
            DEAD,
            "import numpy as np\nnp.lib.stride_tricks.as_strided(np.ones(1), (10**12,))[10**11]",
        ),
    },
    "descriptors and the channel": {
        "closes them all": ("ProcessError|OSError", "import os\nos.closerange(0, 1024)"),
        "closes standard output": ("^$|ValueError", "import sys\nsys.stdout.close()"),
        "writes rubbish to every descriptor": (
            DEAD,
            "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'{\"observation\": 1}')\n"
            "    except OSError: pass",
        ),
        "floods every descriptor": (
            "ProcessError|TimeoutError",
            "import os\nwhile True:\n    for fd in range(3, 64):\n        try: os.write(fd, b'x' * 60000)\n"
            "        except OSError: pass",
        ),
        "reads standard input": ("EOFError", "input('? ')"),
        "reads the channel": (
            "TimeoutError|ProcessError|Error",
            "import socket\nfor fd in range(3, 64):\n    try: socket.socket(fileno=fd).recv(10)\n"
            "    except OSError: pass\n"
            "raise RuntimeError('Error')",
        ),
        "puts a file over every descriptor": (
            DEAD,
            "import os\nfile = os.open('f', os.O_CREAT | os.O_RDWR)\n"
            "for fd in range(3, 64):\n    if fd != file: os.dup2(file, fd)",
        ),
        "forges an answer and goes": (
            "^forged$|ProcessError",
            "import os\nfor fd in range(40, 64):\n    try: os.write(fd, b'False nan\\nforged')\n"
            "    except OSError: pass\nos._exit(0)",
        ),
        "detaches standard output": ("", "import sys\nsys.stdout.detach()"),
    },
    "output": {
        "gigabytes in a loop": (TIME, "while True: print('spam' * 10_000)"),
        "half a gigabyte at once": (r"\.\.\.|MemoryError", "print('a' * (1 << 27))"),
        "through the descriptor": (
            "^done$",
            "import os\nfor _ in range(1000): os.write(1, b'x' * 65536)\nprint('done')",
        ),
        "lone surrogates": (r"\\ud800", "print('\\ud800')"),
        "NUL bytes": ("a\0b", "print('a\\0b')"),
        "a value that is hostile to str": ("Error", "class A:\n    def __str__(self): raise KeyError('no')\nA()"),
        "an error that is hostile to str": (
            "^E: ",
            "class E(Exception):\n    def __str__(self): raise KeyError\nraise E",
        ),
        "an error of a megabyte": (r"^ValueError: x+\.\.\.x+$", "raise ValueError('x' * (1 << 20))"),
        "an error without an end": (
            TIME,
            "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
        ),
        "gigabytes to standard error": (
            "^done$",
            "import sys\nfor _ in range(2000): sys.stderr.write('x' * 1_000_000)\nprint('done')",
        ),
        "an error that exits while it is described": (
            "^E: ",
            "class E(Exception):\n    def __str__(self): raise SystemExit\n"
            "    def with_traceback(self, _): raise SystemExit\nraise E",
        ),
        "a standard output that raises": (
            "RuntimeError",
            "import sys\nclass Out:\n    def write(self, _): pass\n    def flush(self): raise RuntimeError\n"
            "sys.stdout = Out()\nprint(1)",
        ),
    },
    "files": {
        "fills the disk": (
            r"No space left|Disk quota",
            "for i in range(10_000):\n    open(str(i), 'wb').write(b'x' * (1 << 20))",
        ),
        "one large file": (
            "File too large|No space left",
            "f = open('f', 'wb')\nwhile True: f.write(b'x' * (1 << 20))",
        ),
        "a million empty files": ("No space left", "for i in range(1_000_000): open(f'{i}', 'w').close()"),
        "deep folders": (
            "No space left|File name too long",
            "import os\nwhile True:\n    os.mkdir('d')\n    os.chdir('d')",
        ),
        "a file kept open": ("^12$", "f = open('kept', 'w')\nf.write('a' * 12)"),
        "passwords": (r"FileNotFoundError|PermissionError", "print(open('/etc/shadow').read())"),
        "users": (r"FileNotFoundError|PermissionError", "print(open('/etc/passwd').read())"),
        "the home folder": (r"FileNotFoundError|PermissionError", "import os\nprint(os.listdir('/root'))"),
        "other processes' memory": (r"FileNotFoundError|PermissionError", "print(open('/proc/1/mem', 'rb').read(1))"),
        "other processes' environment": (
            r"FileNotFoundError|PermissionError",
            "print(open('/proc/self/environ').read())",
        ),
        "writes to the library": (r"Read-only|PermissionError", "import math, os\nopen(os.__file__, 'a').write('x')"),
        "writes to the system": (r"Read-only|PermissionError|FileNotFound", "open('/usr/lib/evil.so', 'w')"),
        "the environment": ("^{}$", "import os\ndict(os.environ)"),
        "a sparse file": ("File too large", "open('f', 'wb').truncate(1 << 40)"),
        "a link": (DENIED, "import os\nos.symlink('/etc/passwd', 'l')"),
        "a file that cannot be read": ("^$", "import os\nos.close(os.open('f', os.O_CREAT | os.O_WRONLY, 0))"),
        "its own folder": (DENIED, "import os\nfolder = os.getcwd()\nos.chdir('/')\nos.rmdir(folder)"),
    },
    "network": {
        "a connection": (DENIED, "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)"),
        "a server": (DENIED, "import socket\nsocket.socket().bind(('', 8000))"),
        "a Unix socket": (DENIED, "import socket\nsocket.socket(socket.AF_UNIX).connect('/run/docker.sock')"),
        "a web page": (
            "URLError|PermissionError",
            "import urllib.request\nurllib.request.urlopen('http://127.0.0.1')",
        ),
    },
    "the kernel": {
        "ptrace": ("^-1$", SYSCALL + "libc.ptrace(16, 1, 0, 0)"),
        "another process's memory": ("^-1$", SYSCALL + "libc.process_vm_readv(1, None, 0, None, 0, 0)"),
        "mount": ("^-1$", SYSCALL + "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)"),
        "a new user namespace": ("^-1$", SYSCALL + "libc.unshare(0x10000000)"),
        "shared memory": (
            "Error",
            "from multiprocessing import shared_memory\nshared_memory.SharedMemory(create=True, size=9)",
        ),
        "another user": (DENIED, "import os\nos.setuid(0)"),
    },
    "patches": {
        "builtins": (
            "Error|^$",
            "import builtins\nfor name in ('len', 'str', 'print'): setattr(builtins, name, None)",
        ),
        "sympy": ("^$", "import sympy\nsympy.Integer.__add__ = sympy.Symbol.__add__ = lambda a, b: 0"),
        "json and os": (
            "",
            "import json, os, socket\njson.dumps = os.chdir = socket.socket.send = lambda *a, **k: 'forged'",
        ),
        "every module": ("", "import sys\nsys.modules.clear()"),
        "the server's frames": (
            "Error|ProcessError|^",
            "import sys\nframe = sys._getframe()\nwhile frame.f_back: frame = frame.f_back\nframe.f_globals.clear()",
        ),
        "a fork hook that hangs": (
            "^$|TimeoutError",
            "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(1e6))",
        ),
        "a fork hook that ends the parent": ("^$", "import os\nos.register_at_fork(before=lambda: os._exit(0))"),
        "all builtins": ("ProcessError|Error|^$", "import builtins\nvars(builtins).clear()"),
        "an audit hook": ("ProcessError|^$", "import sys\ndef hook(*_): raise RuntimeError\nsys.addaudithook(hook)"),
        "callbacks of the collector": (
            "",
            "import gc\ndef callback(*_): raise RuntimeError\ngc.callbacks.append(callback)\ngc.collect()",
        ),
        "a fork hook that ends the child": ("^$", "import os\nos.register_at_fork(after_in_child=lambda: os._exit(0))"),
    },
    "values": {
        "a pickle with side effects": (
            "^(-1|32512)$",
            "import pickle\nclass A:\n    def __reduce__(self): return (__import__('os').system, ('id',))\n"
            "pickle.loads(pickle.dumps(A()))",
        ),
        "a NUL byte in the code": ("Error: source code string cannot contain null bytes", "x = 1\0"),
        "a surrogate in the code": ("Error", "x = '\ud800'"),
        "a class without a name": ("Error", "class E(BaseException): pass\nE.__name__ = '\\ud800'\nraise E"),
        "a snippet of a megabyte": ("MemoryError: a snippet may have", "x = '" + "a" * (1 << 20) + "'"),
        "nothing": ("^$", ""),
        "Windows line ends": ("^3$", "x = 1\r\nif x:\r\n    y = 2\r\nprint(x + y)\r\n"),
        "form feeds": ("^1$", "\f\nx = 1\n\f\nprint(x)"),
        "tabs and spaces": ("TabError|IndentationError", "if True:\n\tx = 1\n        y = 2"),
        "a long chain of operators": ("Error|^30001$", "print(" + "1+" * 30_000 + "1)"),
    },
}
