"""Merge, convert, quantize and verify a trained classifier: ``python -m exporter``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import get_args

from exporter.artifacts import ONNX_INT8, ExportRecord
from exporter.config import ExportConfig, Quantize, Target
from exporter.select import points
from trainer.errors import UserError, run_command
from trainer.flags import HelpFormatter, parse, run_dir_flag, take_defaults


def main() -> None:
    """Read the flags, export, and print what was made and how it was proved."""
    config = parse(make_parser(), ExportConfig)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from exporter.export import export  # takes seconds to import, and --help should not wait for it

    record = export(config)
    print(summary(record))
    if config.require_int8 and record.chosen != ONNX_INT8:
        raise NoInt8Error("no int8 artifact was chosen", "the export is complete all the same; see the reason above")


class NoInt8Error(UserError):
    """`--require-int8` was given, and fp32 is what should be shipped."""

    exit_code = 3


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its defaults are those of ExportConfig."""
    parser = argparse.ArgumentParser(
        prog="python -m exporter",
        description="Merge a trained adapter, export it to ONNX, quantize it, and prove it the same classifier.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="the run to export")
    parser.add_argument(
        "--quantize",
        nargs="?",
        const="auto",
        choices=get_args(Quantize),
        help="try int8 recipes, all or one family, and choose the fastest within the budget",
    )
    parser.add_argument("--max-drop", type=float, metavar="X", help="accuracy that int8 may cost, percentage points")
    parser.add_argument(
        "--accept-undecided", action="store_true", help="ship int8 even if the reviews are too few to tell"
    )
    parser.add_argument("--require-int8", action="store_true", help="status 3 if no int8 artifact is chosen")
    parser.add_argument("--budget-minutes", type=float, metavar="X", help="time after which no further recipe is tried")
    parser.add_argument(
        "--target", choices=get_args(Target), help="`portable` keeps int8 right on x86 CPUs without VNNI, too"
    )
    parser.add_argument("--no-fuse", action="store_true", help="leave the fp32 graph as it was converted")
    parser.add_argument("--verify-samples", type=int, metavar="N", help="most evaluation reviews to compare on")
    return take_defaults(parser, ExportConfig)


def summary(record: ExportRecord) -> str:
    """Render an export's proof, its ladder, its choice and the next command, for a person."""
    run_dir = record.config.run_dir
    flag = run_dir_flag(run_dir, ExportConfig.run_dir)
    parts = [proof(record), ladder(record) if record.candidates or record.failed else "", choice(record)]
    return "\n\n".join(
        [part for part in parts if part]
        + [f'next: python -m exporter.predict{flag} "An unforgettable film."\n      python -m bench{flag}']
    )


def proof(record: ExportRecord) -> str:
    """Render the chain: every link up to the artifacts, with its largest differences."""
    tried = {c.recipe for c in record.candidates if c.recipe != record.int8_recipe} | {f.recipe for f in record.failed}
    links = [c for c in record.comparisons if c.candidate not in tried]
    first = links[0]
    lines = [
        f"proof, on {first.reviews} evaluation reviews and {first.texts - first.reviews} pieces of all lengths, "
        "alone and in padded batches:",
        f"{'':<38}{'logits, largest':>16}{'probability, largest':>22}   answers changed",
    ]
    for c in links:
        changed = f"{c.flips_harmful} to wrong, {c.flips_helpful} to right"
        lines.append(
            f"{f'{c.candidate} vs {c.reference}':<38}{c.max_abs_logit:>16.2g}{c.max_abs_probability:>22.2g}   {changed}"
            + f", {c.flips_other} other" * bool(c.flips_other)
        )
    if record.fused:
        lines.append(f"fused: {', '.join(f'{count} {name}' for name, count in record.fused.items())}")
    return "\n".join(lines)


def ladder(record: ExportRecord) -> str:
    """Render the int8 recipes tried, a row each, with what they cost and bring beside `onnx-fp32`."""
    reviews = record.candidates[0].change.reviews if record.candidates else 0
    lines = [
        f"int8 recipes against onnx-fp32, accuracy on {reviews:,} evaluation reviews, speed one review a call:",
        f"{'':<24}{'MB':>7}{'accuracy, points':>24}{'worse/better':>14}{'speed':>22}{'batch flips':>13}   verdict",
    ]
    for c in sorted(record.candidates, key=lambda c: -c.speed.median):
        change = f"{points(c.change.change)} [{points(c.change.lower)}, {points(c.change.upper)}]"
        speed = f"{c.speed.median:.2f}x [{c.speed.low:.2f}, {c.speed.high:.2f}]"
        lines.append(
            f"{c.recipe:<24}{c.size_bytes / 1e6:>7.1f}{change:>24}{f'{c.change.harmful}/{c.change.helpful}':>14}"
            f"{speed:>22}{f'{c.batch.flips}/{c.batch.reviews}':>13}   {c.judgement}"
        )
    lines += [f"{failure.recipe:<24}  failed: {failure.reason}" for failure in record.failed]
    lines += [f"not tried: {skipped}" for skipped in record.skipped]
    return "\n".join(lines)


def choice(record: ExportRecord) -> str:
    """Render which artifact to ship, why, and how steady its answers are."""
    lines = [f"chosen: {record.chosen}, {record.reason}"]
    for v in record.variations:
        lines.append(
            f"  the same reviews {v.name}: {v.flips} of {v.reviews} answers change, "
            f"probabilities by {v.max_abs_probability:.2g} at most"
        )
    lines.append("")
    for artifact in record.artifacts:
        note = "  <- ship this" if artifact.name == record.chosen else ""
        lines.append(f"{artifact.size_bytes / 1e6:>8.1f} MB  {record.config.run_dir / 'export' / artifact.name}{note}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command(main, if_interrupted="nothing was exported; run the command again"))
