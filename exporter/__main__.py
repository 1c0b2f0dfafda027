"""Merge, convert, quantize and verify a trained classifier: ``python -m exporter``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from exporter.artifacts import ExportRecord
from exporter.config import ExportConfig
from trainer.errors import run_command
from trainer.flags import HelpFormatter, parse, run_dir_flag, take_defaults


def main() -> None:
    """Read the flags, export, and print what was made and how it was proved."""
    config = parse(make_parser(), ExportConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from exporter.export import export  # takes seconds to import, and --help should not wait for it

    print(summary(export(config)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of ExportConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m exporter",
        description="Merge a trained adapter, export it to ONNX, quantize it, and prove it the same classifier.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="the run to export")
    parser.add_argument("--quantize", action="store_true", help="also make an int8 artifact for CPUs")
    parser.add_argument("--verify-samples", type=int, metavar="N", help="most evaluation reviews to compare on")
    return take_defaults(parser, ExportConfig)


def summary(record: ExportRecord) -> str:
    """Render an export's proof, its artifacts and the next command, for a person."""
    run_dir = record.config.run_dir
    flag = run_dir_flag(run_dir, ExportConfig.run_dir)
    lines = [
        f"proof, on {record.comparisons[0].reviews} evaluation reviews, shortest to longest, alone and in batches:",
        f"{'':<30}{'logits, largest':>18}{'probability, mean':>20}   answers changed",
    ]
    for c in record.comparisons:
        lines.append(
            f"{f'{c.candidate} vs {c.reference}':<30}{c.max_abs_logit:>18.2g}{c.mean_abs_probability:>20.2g}   "
            f"{c.flips_harmful} to wrong, {c.flips_helpful} to right" + f", {c.flips_other} other" * bool(c.flips_other)
        )
    lines.append("")
    for artifact in record.artifacts:
        note = "  <- ship this" if artifact.name == record.chosen else ""
        lines.append(f"{artifact.size_bytes / 1e6:>8.1f} MB  {run_dir / 'export' / artifact.name}{note}")
    return "\n".join(
        [*lines, "", f'next: python -m exporter.predict{flag} "An unforgettable film."', f"      python -m bench{flag}"]
    )


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="nothing was exported; run the command again"))
