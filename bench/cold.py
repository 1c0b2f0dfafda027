"""A new process up to its first answer, timed in it and from outside: ``python -m bench.cold`` is that process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TIMEOUT_S = 600


def cold_start(backend: str, run_dir: Path, threads: int, text: str) -> dict[str, float] | None:
    """Start a process that answers one review with a backend.

    Returns:
        Seconds, by the fields of `ColdStart`; None where the process failed.
    """
    environment = os.environ | {
        name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    }
    question = json.dumps({"backend": backend, "run_dir": str(run_dir), "threads": threads, "text": text})
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "bench.cold"],
        input=question,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=TIMEOUT_S,
    )
    total = time.perf_counter() - start
    if done.returncode:
        return None
    return {"total_s": total, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Import what a backend needs, load it, answer, and print how long each took."""
    start = time.perf_counter()
    question = json.load(sys.stdin)
    from bench.backends import choose_specs, import_packages, load_backend
    from bench.measure import timed
    from trainer.run import RunDir

    (spec,) = choose_specs([question["backend"]])
    import_packages(spec)
    imported = time.perf_counter()
    form = load_backend(spec, RunDir(Path(question["run_dir"])), question["threads"])
    loaded = time.perf_counter()
    timed(form, question["text"])
    answered = time.perf_counter()
    sys.stdout.write(
        json.dumps({"import_s": imported - start, "load_s": loaded - imported, "first_s": answered - loaded}) + "\n"
    )


if __name__ == "__main__":
    main()
