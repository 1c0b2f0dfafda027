"""BenchRecord to Markdown: the table, what it means, and which artifact to ship. Pure functions."""

from __future__ import annotations

from bench.backends import BASELINE
from bench.results import Accuracy, BackendInfo, BenchRecord
from exporter.budget import count_changes
from exporter.timing import Spread, speed_ratio, spread


def render(record: BenchRecord) -> str:
    """Render a record as Markdown that is also readable on a console."""
    return "\n\n".join(
        part
        for part in (
            _table([_header(record), *(_row(record, info) for info in record.backends), *_empty_rows(record)]),
            _verdict(record),
            _skipped(record),
            _method(record),
        )
        if part
    )


def _header(record: BenchRecord) -> list[str]:
    columns = ["backend", "accuracy", "weighted F1", "loss", "worse / better", "MB"]
    for batch_size in record.config.batch_sizes:
        columns += [f"ms, batch {batch_size}", "speed"]
    return columns


def _row(record: BenchRecord, info: BackendInfo) -> list[str]:
    scores = _accuracy(record, info.name)
    cells = [f"{scores.accuracy:.2%}", f"{scores.f1_weighted:.2%}", f"{scores.loss:.3f}", _changes(record, scores)]
    cells.append(f"{info.size_bytes / 1e6:.1f}")
    for batch_size in record.config.batch_sizes:
        samples = _samples(record, info.name, batch_size)
        cells += [_milliseconds(spread(samples)), _ratio(speed_ratio(_baseline(record, batch_size), samples))]
    return [info.name, *cells]


def _empty_rows(record: BenchRecord) -> list[list[str]]:
    return [[s.backend, *["–"] * (len(_header(record)) - 1)] for s in record.skipped]


def _verdict(record: BenchRecord) -> str:
    """Say what shipping the exporter's choice brings and costs, compared with the baseline."""
    info = next((b for b in record.backends if b.artifact == record.chosen and b.device == "cpu"), None)
    if info is None:
        return ""
    folder = record.config.run_dir / "export" / info.artifact
    reference = _baseline_name(record)
    if info.name == reference:
        return f"Ship `{folder}` ({info.size_bytes / 1e6:.1f} MB)."
    scores, before = _accuracy(record, info.name), _accuracy(record, reference)
    batch_size = record.config.batch_sizes[0]
    ratio = speed_ratio(_baseline(record, batch_size), _samples(record, info.name, batch_size))
    return (
        f"Ship `{folder}`: {_ratio(ratio)} the speed of `{reference}` at batch {batch_size}, "
        f"{100 * (scores.accuracy - before.accuracy):+.2f} points of accuracy on {scores.reviews} reviews, "
        f"{info.size_bytes / 1e6:.1f} MB."
    )


def _skipped(record: BenchRecord) -> str:
    return "\n".join(
        ["Not measured:", "", *(f"- `{s.backend}`: {s.reason}" for s in record.skipped)] if record.skipped else []
    )


def _method(record: BenchRecord) -> str:
    environment = record.environment
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    gpu = f", {environment.gpu}" if environment.gpu else ""
    return (
        f"Scores: on {len(record.labels):,} evaluation reviews. "
        f"Times: median [quartiles] of {record.config.calls} calls, texts in, logits out, on reviews drawn at random; "
        f"every backend in a process of its own, {environment.threads} threads each, in interleaved random order. "
        f"Speed: times faster than `{_baseline_name(record)}`, call by call. "
        f"Worse / better: answers that it has right and this one wrong, and the reverse.\n\n"
        f"{environment.cpu}, {environment.usable_cores} cores{gpu}, {environment.system}; {versions}."
    )


def _table(rows: list[list[str]]) -> str:
    """Lay out rows as a Markdown table with aligned columns; the first row is the header, the first column text."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(row)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _baseline_name(record: BenchRecord) -> str:
    names = [info.name for info in record.backends]
    return BASELINE if BASELINE in names else names[0]


def _baseline(record: BenchRecord, batch_size: int) -> tuple[float, ...]:
    return _samples(record, _baseline_name(record), batch_size)


def _samples(record: BenchRecord, backend: str, batch_size: int) -> tuple[float, ...]:
    return next(t.samples_s for t in record.timings if (t.backend, t.batch_size) == (backend, batch_size))


def _accuracy(record: BenchRecord, backend: str) -> Accuracy:
    return next(scores for scores in record.accuracies if scores.backend == backend)


def _changes(record: BenchRecord, scores: Accuracy) -> str:
    worse, better = count_changes(_accuracy(record, _baseline_name(record)).predicted, scores.predicted, record.labels)
    return f"{worse} / {better}"


def _milliseconds(seconds: Spread) -> str:
    return f"{seconds.median * 1e3:.1f} [{seconds.low * 1e3:.1f}, {seconds.high * 1e3:.1f}]"


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.2f}× [{ratio.low:.2f}, {ratio.high:.2f}]"
