"""A new process up to its first answer, timed in it and from outside: `python -m bench.measure.cold` is it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from exporter.proof.worker import THREAD_VARIABLES
from trainer.tasks import Task
from trainer.text.texts import Text

ANSWER = "cold start: "
"""Before the answer: libraries may print something of their own."""


def cold_start(
    engine: str, run_dir: Path, threads: int, prepared: Path, text: Text, task: Task
) -> dict[str, float] | None:
    """Start a process that answers one text with an engine.

    Args:
        engine: its name.
        run_dir: the run's.
        threads: how many CPU threads it may use.
        prepared: the folder of what the engine was prepared with.
        text: the text, or the pair of texts.
        task: what the logits mean.

    Returns:
        Seconds, by the fields of `ColdStart`; None where the process failed.
    """
    asked = {
        "engine": engine,
        "run_dir": str(run_dir),
        "threads": threads,
        "prepared": str(prepared),
        "text": text,
        "task": task.name,
        "classes": task.classes,
    }
    question = json.dumps(asked)
    answer, start = "", time.perf_counter()
    with (
        contextlib.suppress(BrokenPipeError),
        subprocess.Popen(
            [sys.executable, "-m", "bench.measure.cold"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)),
        ) as process,
    ):
        process.stdin.write(f"{question}\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        answer = next((line for line in process.stdout or () if line.startswith(ANSWER)), "")
        total = time.perf_counter() - start  # before the interpreter takes itself down, for which no user waits
    return {"total_s": total, **json.loads(answer.removeprefix(ANSWER))} if answer else None


def main() -> None:
    """Import what an engine needs, load it, answer, and print how long each took."""
    start = time.perf_counter()
    question = json.loads(sys.stdin.readline())
    text = question["text"]
    threading.Thread(target=_die_with_parent, daemon=True).start()
    from bench.engines.table import choose_engines
    from bench.measure.calls import timed
    from bench.measure.cores import pin
    from trainer.run import RunDir
    from trainer.tasks import task_of

    pin(question["threads"])
    (spec,) = choose_engines([question["engine"]])
    spec.import_packages()
    imported = time.perf_counter()
    engine = spec.load(RunDir(Path(question["run_dir"])), question["threads"], Path(question["prepared"]))
    loaded = time.perf_counter()
    timed(engine, text if isinstance(text, str) else tuple(text), task_of(question["task"], question["classes"]))
    answered = time.perf_counter()
    parts = {"import_s": imported - start, "load_s": loaded - imported, "first_s": answered - loaded}
    sys.stdout.write(f"{ANSWER}{json.dumps(parts)}\n")
    sys.stdout.flush()


def _die_with_parent() -> None:
    """End this process where the one that asks has gone, and its end of the pipe with it."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
