"""A coverage-guided fuzzer on the targets: ``make fuzz SECONDS=600``.

Each target runs in a process of its own for its share of the time. An input that fails ends its target and is left in
the folder that is printed: fix the fault and put the input into `corpus/`, where the default suite reads it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import atheris

with atheris.instrument_imports(include=["trainer", "exporter", "bench"]):
    from fuzzing.targets import TARGETS, make_fuzz_targets

from local_worker import LocalWorker
from toys import make_checkpoint, make_texts, write_csv

from exporter.config import ExportConfig
from exporter.export import export
from trainer.config import TrainConfig
from trainer.run import RunDir
from trainer.training.train import train

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--only", choices=TARGETS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # what a target's own process gets
    args = parser.parse_args()
    if args.work:
        _fuzz(args.work, args.only, args.seconds)
    work = Path(tempfile.mkdtemp(prefix="fuzz-"))
    _make_run(work)
    names = [args.only] if args.only else TARGETS
    failed = [name for name in names if not _run(work, name, args.seconds // len(names))]
    sys.exit(f"failed: {', '.join(failed)}; see {work}" if failed else 0)


def _make_run(work: Path) -> None:
    make_checkpoint(work / "base")
    dataset = write_csv(work / "topics.csv", list(make_texts(160)))
    config = TrainConfig(str(work / "base"), dataset=str(dataset), max_length=24, precision="fp32", device="cpu")
    train(replace(config, epochs=1, batch_size=8, run_dir=work / "run"))
    export(ExportConfig(run_dir=work / "run", verify_samples=16), LocalWorker)


def _run(work: Path, name: str, seconds: int) -> bool:
    """Fuzz one target; print its executions and the lines that failed; return whether none did."""
    command = [sys.executable, __file__, "--work", str(work), "--only", name, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    found = re.search(r"Done ([0-9]+) runs in ([0-9]+) second", output)
    (work / f"{name}.log").write_text(output)
    print(f"{name}: {f'{int(found[1]):,} inputs in {found[2]} s' if found else f'failed, see {work / name}.log'}")
    return found is not None and done.returncode == 0


def _fuzz(work: Path, name: str, seconds: int) -> None:
    scratch = work / name
    (scratch / "found").mkdir(parents=True)
    target = make_fuzz_targets(RunDir(work / "run"), work / "base", scratch)[name]
    seeds = [str(path) for path in (scratch / "found", CORPUS / name) if path.is_dir()]
    limits = [f"-max_total_time={seconds}", "-max_len=512", "-timeout=60", "-rss_limit_mb=6000"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={scratch}/", *seeds], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
