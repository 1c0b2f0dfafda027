"""Show what this project promises of speed beside what was measured: ``python -m bench.goals``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.config import BenchConfig
from trainer.errors import UserError, run_command
from trainer.flags import HelpFormatter, parse, take_defaults
from trainer.progress import show


@dataclass(frozen=True)
class GoalsConfig:
    """What was asked for."""

    run_dir: Path = BenchConfig.run_dir


def main() -> None:
    """Read the flags, and print the table that the records of a run make."""
    config = parse(make_parser(), GoalsConfig)
    from bench.judge.goals import goals, table  # takes a while to import, and --help should not wait for it
    from bench.results import BenchRecord
    from bench.training.compare import FILE
    from bench.training.record import TrainingSpeed
    from exporter.records import load_export
    from trainer.records import read_record, write_text
    from trainer.run import RunDir

    run = RunDir(config.run_dir)
    if not run.bench_record.is_file():
        raise UserError(f"no benchmark in `{run.path}`", "run `python -m bench --peers` first")
    record, path = read_record(run.bench_record, BenchRecord), run.path / FILE
    training = read_record(path, TrainingSpeed) if path.is_file() else None
    trained = run.load().training
    text = table(record, goals(record, training, load_export(run), trained.duration_s if trained else None))
    write_text(run.path / "goals.md", text)
    show(text)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of GoalsConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.goals",
        description="Show what was measured of a run beside what is promised; the table is written to goals.md.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="the run that was measured")
    return take_defaults(parser, GoalsConfig)


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="nothing was changed; run the command again"))
