"""One backend in one process: runtimes that share a process fight over threads and memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from bench.backends import BackendSpec, load_backend
from bench.latency import timed_call
from exporter.runtime import FloatArray
from trainer.errors import UserError
from trainer.run import RunDir


class Worker:
    """A process that holds one backend and answers for it. Use it as a context manager, or `close` it.

    Raises:
        UserError: the backend cannot be loaded here.
    """

    def __init__(self, spec: BackendSpec, run: RunDir, threads: int) -> None:
        self._name = spec.name
        context = multiprocessing.get_context("spawn")  # a forked copy would inherit this process's thread pools
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec, run, threads), daemon=True)
        # Ctrl-C goes to the whole group of a terminal: it is for this process, which then closes the pipe. Set here,
        # since the child takes a moment before it could set it for itself.
        with _ignored(signal.SIGINT):
            self._process.start()
        theirs.close()
        self._receive()

    def logits(self, texts: Sequence[str], batch_tokens: int) -> FloatArray:
        """Return the logits of `texts`, scored in batches of similar length."""
        answer: FloatArray = self._ask("logits", texts, batch_tokens)
        return answer

    def time(self, texts: Sequence[str]) -> float:
        """Return the seconds that the backend takes for `texts` as one batch, measured inside its process."""
        return float(self._ask("time", texts))

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.terminate()

    def _ask(self, *question: Any) -> Any:
        with contextlib.suppress(ConnectionError):  # a process that died is noticed on receiving
            self._pipe.send(question)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(timeout=5)
            raise UserError(
                f"the process of `{self._name}` died with status {self._process.exitcode}",
                "it may have run out of memory; measure fewer backends at once with `--backends`",
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(pipe: Connection, spec: BackendSpec, run: RunDir, threads: int) -> None:
    """Load the backend and answer questions until the other end closes."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[variable] = str(threads)
    try:
        backend = load_backend(spec, run, threads)
        pipe.send("ready")
        while True:
            match pipe.recv():
                case "logits", texts, batch_tokens:
                    pipe.send(backend.logits(texts, batch_tokens=batch_tokens))
                case "time", texts:
                    pipe.send(timed_call(backend, texts))
    except (EOFError, ConnectionError):
        pass  # the parent is done, or gone
    except UserError as error:
        pipe.send(error)
    except Exception as error:  # whatever a runtime raises is a reason to be told, such as a device out of memory
        reason = (str(error).splitlines() or [""])[0]
        pipe.send(
            UserError(f"`{spec.name}` failed: {type(error).__name__}: {reason}", "leave it out with `--backends`")
        )


@contextlib.contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    """Ignore a signal for the time being; a process started in it goes on ignoring it."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)
