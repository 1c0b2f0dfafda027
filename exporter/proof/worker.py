"""One loaded classifier in one process of its own.

A proof has to load what it proves from disk, with nothing left over in memory from making it; and runtimes that share a
process fight over threads and memory.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol, TypeVar

from exporter.engines.engine import ALL_AT_ONCE, Batching, Engine, Model, ModelEngine
from trainer.errors import UserError
from trainer.tasks import FloatArray
from trainer.text.encoding import Encoded
from trainer.text.texts import Text

R = TypeVar("R")

MANY_CORES = 8
"""From which on processes are started before they are needed; with fewer, they would take turns with the others."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


class Started(NamedTuple):
    """A process that waits for the engine that it is to load."""

    process: BaseProcess
    pipe: Connection


class Worker:
    """A process that holds one engine and answers for it; `close` it.

    Args:
        name: what messages call it.
        load: loads the engine, in the other process; a function of a module, or a `partial` of one.
        threads: how many CPU threads it may use.
        before: called in the other process before it loads anything.
        wait: whether to wait until it is loaded; else `wait` does.
        started: the process, where one is there already.

    Raises:
        UserError: it cannot be loaded here.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], Any],
        threads: int,
        before: Callable[[], None] | None = None,
        *,
        wait: bool = True,
        started: Started | None = None,
    ) -> None:
        self._name = name
        self._process, self._pipe = started or _start(threads, before)
        with contextlib.suppress(ConnectionError):  # a process that died is noticed on receiving
            self._pipe.send(name)
            self._pipe.send(load)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until the engine is loaded.

        Raises:
            UserError: it cannot be.
        """
        try:
            self._receive()
        except BaseException:  # Ctrl-C while it loads: nobody else would end it
            self.close()
            raise

    def call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Return what `function`, of a module, returns for the engine and `arguments` in the other process."""
        with contextlib.suppress(ConnectionError):  # a process that died is noticed on receiving
            self._pipe.send((function, arguments))
        answer: R = self._receive()
        return answer

    def logits(self, texts: Sequence[Text], batching: Batching = ALL_AT_ONCE) -> FloatArray:
        """Return the logits of `texts`; see `Engine.logits`."""
        return self.call(_logits, texts, batching)

    def run(self, batch: Sequence[Encoded], length: int | None = None) -> FloatArray:
        """Return the logits of encoded texts in one batch; see `Model.run`."""
        return self.call(_run, batch, length)

    def time(self, texts: Sequence[Text], batching: Batching = ALL_AT_ONCE) -> float:
        """Return the seconds that it takes for `texts`, measured inside its process; see `Engine.logits`."""
        return self.call(timed_call, texts, batching)

    def is_alive(self) -> bool:
        """Tell whether the process still runs."""
        return self._process.is_alive()

    def dismiss(self) -> None:
        """Tell the process to end, without waiting until it has."""
        self._pipe.close()

    def close(self) -> None:
        """End the process."""
        self.dismiss()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(timeout=5)
            raise UserError(
                f"the process of `{self._name}` died with status {self._process.exitcode}",
                "it may have run out of memory",
            ) from None
        if isinstance(answer, Exception):
            self._process.join(timeout=5)  # it ends after an error, and `is_alive` is not to say otherwise
            raise answer
        return answer


class Spares:
    """Starts workers; those for some loads in processes that were started ahead, and have imported by now what is slow.

    `close` it. It takes the place of `Worker` where there are cores to spare.

    Args:
        threads: how many CPU threads each may use.
        loads: the functions, called by a `partial`, that they are for. Other engines get a process of their own.
        before: called in each of them at once.
        ahead: how many wait at a time.
        most: how many there are in all.
    """

    def __init__(
        self,
        threads: int,
        loads: Sequence[Callable[..., Any]],
        before: Callable[[], None],
        *,
        ahead: int,
        most: int,
    ) -> None:
        self._threads, self._loads, self._before = threads, loads, before
        self._left, self._waiting = most, deque[Started]()
        for _ in range(ahead):
            self._add()

    def __call__(
        self,
        name: str,
        load: Callable[[], Any],
        threads: int,
        before: Callable[[], None] | None = None,
        *,
        wait: bool = True,
    ) -> Worker:
        """Give the process that was started first something to load, and start another in its place."""
        is_for_it = getattr(load, "func", None) in self._loads and threads == self._threads and not before
        if not is_for_it or not self._waiting:
            return Worker(name, load, threads, before, wait=wait)
        started = self._waiting.popleft()
        self._add()
        return Worker(name, load, threads, wait=wait, started=started)

    def close(self) -> None:
        """End those that still wait."""
        for process, pipe in self._waiting:
            pipe.close()
            process.terminate()
        for process, _ in self._waiting:
            process.join()

    def _add(self) -> None:
        if self._left:
            self._left -= 1
            self._waiting.append(_start(self._threads, self._before))


class StartWorker(Protocol):
    """Starts a worker as the class does, or stands in for it; see `Worker` for the arguments."""

    def __call__(
        self,
        name: str,
        load: Callable[[], Any],
        threads: int,
        before: Callable[[], None] | None = None,
        *,
        wait: bool = True,
    ) -> Worker:
        """Start one."""


@dataclass(frozen=True)
class Workers:
    """Starts a process for each engine, with so many CPU threads."""

    threads: int
    start: StartWorker = Worker

    def opened(self, name: str, load: Callable[[], Any]) -> contextlib.closing[Worker]:
        """Load an engine in a process of its own, which ends with the `with` block."""
        return contextlib.closing(self.start(name, load, self.threads))

    def opening(self, name: str, load: Callable[[], Any]) -> contextlib.closing[Worker]:
        """Do the same, but do not wait until it is loaded: `Worker.wait` does."""
        return contextlib.closing(self.start(name, load, self.threads, wait=False))


def timed_call(
    engine: Engine,
    texts: Sequence[Text],
    batching: Batching = ALL_AT_ONCE,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the seconds from texts to logits on the host; `Engine.logits` is synchronous by contract."""
    start = clock()
    engine.logits(texts, batching)
    return clock() - start


def _logits(engine: Engine, texts: Sequence[Text], batching: Batching) -> FloatArray:
    return engine.logits(texts, batching)


def _run(engine: ModelEngine[Model], batch: Sequence[Encoded], length: int | None) -> FloatArray:
    return engine.model.run(batch, length)


def _start(threads: int, before: Callable[[], None] | None) -> Started:
    context = multiprocessing.get_context("spawn")  # a forked copy would inherit this process's thread pools
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, before), daemon=True)
    # Ctrl-C goes to the whole group of a terminal: it is for this process, which then closes the pipe. Set here,
    # since the child takes a moment before it could set it for itself.
    with _ignored(signal.SIGINT), _thread_variables(threads):
        process.start()
    theirs.close()
    return Started(process, ours)


def _serve(pipe: Connection, before: Callable[[], None] | None) -> None:
    """Load an engine and answer questions until the other end closes."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    name = None
    try:
        if before:
            before()
        name = pipe.recv()
        load = pipe.recv()
        engine = load()
        pipe.send("ready")
        while True:
            function, arguments = pipe.recv()
            pipe.send(function(engine, *arguments))
    except (EOFError, ConnectionError):
        pass  # the parent is done, or gone
    except UserError as error:
        pipe.send(error)
    except Exception as error:  # whatever a runtime raises is a reason to report, such as a device out of memory
        with contextlib.suppress(EOFError, ConnectionError):
            pipe.send(failure(name or pipe.recv(), error))


def _die_with_parent() -> None:
    """End this process where the one that started it was killed: in a long call nobody else would notice."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def failure(name: str, error: Exception) -> UserError:
    """Return what to say of an engine that raised something of its own."""
    reason = (str(error).splitlines() or [""])[0]
    return UserError(f"`{name}` failed: {type(error).__name__}: {reason}", "see whether device and memory suffice")


@contextlib.contextmanager
def _thread_variables(threads: int) -> Iterator[None]:
    """Set what libraries read when they are imported, which a new process does before it runs anything of ours."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    """Ignore a signal for the time being; a process started in it goes on ignoring it."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)
