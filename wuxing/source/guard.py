"""A process of its own for libraries written in C that read what strangers made: it may crash, hang or eat memory.

`read` hands bytes to a child that stays warm, and gives back what it answers, or the fate of those bytes.  The child
has bounds on memory and processor time, opens no file for writing, and ends with its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import struct
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import import_module
from typing import Any, BinaryIO

from wuxing.core.record import Drop
from wuxing.source.row import short

WALL_FACTOR = 10
"""A child that is not served by a busy machine gets so many times its processor time before it is given up."""
_LENGTH = struct.Struct("<Q")
_CHILDREN: dict[tuple[int, int], _Child] = {}


class _Child:
    """The running child of this process."""

    def __init__(self, memory_bytes: int):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "wuxing.source.guard", str(memory_bytes)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )

    def ask(self, request: dict[str, Any], data: bytes, seconds: float) -> Any:
        """Its answer.  Raises OSError when it is gone, TimeoutError when it says nothing for so long."""
        assert self.process.stdin is not None and self.process.stdout is not None
        head = json.dumps({**request, "bytes": len(data)}).encode()
        self.process.stdin.write(_LENGTH.pack(len(head)) + head)
        self.process.stdin.write(data)
        self.process.stdin.flush()
        until = time.monotonic() + seconds
        (size,) = _LENGTH.unpack(self._read(_LENGTH.size, until))
        return json.loads(self._read(size, until))

    def _read(self, count: int, until: float) -> bytes:
        assert self.process.stdout is not None
        found = bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            while len(found) < count:
                if not ready.select(max(0.0, until - time.monotonic())):
                    raise TimeoutError
                piece = os.read(self.process.stdout.fileno(), min(1 << 20, count - len(found)))
                if not piece:
                    raise EOFError
                found += piece
        return bytes(found)

    def end(self) -> int:
        """End it, and say how it ended."""
        self.process.kill()
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what the dead did not read
                pipe.close()
        return code


def read(function: str, settings: dict[str, Any], data: bytes, cpu_seconds: int, memory_bytes: int) -> Any:
    """What `module:function(data, **settings)` answers (JSON values), or a Drop.

    Besides the function's own: `too_slow`, `too_much_memory`, `crashed`.
    """
    key = (os.getpid(), memory_bytes)
    child = _CHILDREN.get(key)
    if child is None or child.process.poll() is not None:
        child = _CHILDREN[key] = _Child(memory_bytes)
    request = {"function": function, "settings": settings, "cpu_seconds": cpu_seconds}
    answered = False
    try:
        answer = child.ask(request, data, cpu_seconds * WALL_FACTOR)
        answered = True
    except TimeoutError:
        return Drop("too_slow", f"no answer within {cpu_seconds * WALL_FACTOR} seconds")
    except (OSError, EOFError, ValueError):
        code, answered = _end(key), True
        if code == -_SIGXCPU:
            return Drop("too_slow", f"more than {cpu_seconds} seconds of processor time (limits.cpu_seconds)")
        return Drop("crashed", f"the reader ended with {code}")
    finally:
        if not answered:
            _end(key)  # an interrupt between question and answer must not leave an old answer in the pipe
    return Drop(**answer["drop"]) if "drop" in answer else answer["value"]


_SIGXCPU = 24


def _end(key: tuple[int, int]) -> int:
    """End a child that can no longer be believed."""
    child = _CHILDREN.pop(key)
    with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs, and is killed; a crash is told by its own code
        child.process.wait(timeout=0.5)
    return child.end()


@atexit.register
def _end_all() -> None:
    for (pid, _), child in list(_CHILDREN.items()):
        if pid == os.getpid():
            child.end()
    _CHILDREN.clear()


def serve(questions: BinaryIO, answers: BinaryIO, memory_bytes: int) -> None:
    """The child's loop, until its parent closes the pipe or dies."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    while len(size := questions.read(_LENGTH.size)) == _LENGTH.size:
        request = json.loads(questions.read(_LENGTH.unpack(size)[0]))
        data = questions.read(request["bytes"])
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime) + 1
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (spent + request["cpu_seconds"], hard))
        module, _, function = request["function"].partition(":")
        try:
            made = getattr(import_module(module), function)(data, **request["settings"])
        except MemoryError:
            made = Drop("too_much_memory", f"more than {memory_bytes} bytes (limits.memory_bytes)")
        except Exception as error:  # whatever it is, it is the fate of these bytes alone, and it is said
            made = Drop("crashed", f"{type(error).__name__}: {short(error)}")
        answer = {"drop": asdict(made)} if isinstance(made, Drop) else {"value": made}
        encoded = json.dumps(answer).encode()
        answers.write(_LENGTH.pack(len(encoded)) + encoded)
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]))
