"""Functions of the tests that run in a process of their own, on another host of ``support.hosts`` if need be.

A plain function runs once, and what it returns is the answer. A generator function runs for as long as the test likes:
each ``yield`` hands a value over and waits for the next question. A process whose test has gone, killed or not, sees
the end of its connection and ends.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any

__all__ = ["Remote", "Worked", "run"]

PATIENCE = 60.0  # seconds; whoever takes this long has failed
END = 15.0  # seconds that a process has to end by itself
GONE = object()

Worked = Callable[..., Any]


class Remote:
    """A function that runs in another process.

    Args:
        function: of a module that can be imported there; its arguments and values are pickled.
        arguments: for it.
        prefix: the command that runs the process, ``nsenter`` say.
    """

    def __init__(self, function: Worked, *arguments: Any, prefix: Sequence[str] = ()) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._pipe, theirs = Pipe()
        path = os.pathsep.join(sys.path)
        with theirs:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "support.remote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )
        self._pipe.send((function.__module__, function.__qualname__, arguments))

    def get(self, timeout: float = PATIENCE) -> Any:
        """What the function returns, or yields next.

        Raises:
            AssertionError: it has raised, and the text has its traceback; or nothing came in time.
        """
        try:
            assert self._pipe.poll(timeout), f"{self._name} has said nothing for {timeout:g} s"
            failed, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise AssertionError(f"{self._name}: its process has ended, {self.process.wait(END)}") from error
        assert not failed, f"{self._name} failed in its process:\n{value}"
        return value

    def ask(self, question: Any = None, timeout: float = PATIENCE) -> Any:
        """Goes on with a generator: its ``yield`` returns the question. Returns what it yields next; raises as get."""
        self._pipe.send(question)
        return self.get(timeout)

    def end(self) -> None:
        """Closes a generator, whose ``finally`` blocks run, and waits for the process. Twice is harmless."""
        self._pipe.close()
        try:
            self.process.wait(END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self._name} did not end within {END:g} s") from None

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()


def run(function: Worked, *arguments: Any, prefix: Sequence[str] = (), timeout: float = PATIENCE) -> Any:
    """Runs a plain function in another process; returns what it returns. Raises as ``Remote.get``."""
    with Remote(function, *arguments, prefix=prefix) as remote:
        return remote.get(timeout)


# ------------------------------------------------------------------------------------------ in the process


def _main(descriptor: int) -> None:
    pipe = Connection(descriptor)
    module, name, arguments = pipe.recv()
    questions: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, questions), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        try:
            _work(pipe, questions, getattr(importlib.import_module(module), name)(*arguments))
        except BaseException:  # noqa: BLE001 - told to the test
            pipe.send((True, traceback.format_exc()))


def _work(pipe: Connection, questions: queue.SimpleQueue[Any], result: Any) -> None:
    if not inspect.isgenerator(result):
        pipe.send((False, result))
        return
    with contextlib.closing(result), contextlib.suppress(StopIteration):
        question = None
        while question is not GONE:
            pipe.send((False, result.send(question)))
            question = questions.get()


def _listen(pipe: Connection, questions: queue.SimpleQueue[Any]) -> None:
    """Takes questions until the other side has gone; then this process has some time to end, and is ended."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            questions.put(pipe.recv())
    questions.put(GONE)
    threading.Event().wait(END - 1)
    os._exit(3)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
