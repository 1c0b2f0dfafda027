"""What the page tells in tables alone: bulk scoring, accuracy, start, memory, what is missing. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bench.judge.stats import Interval
from bench.judge.summary import Row, Summary
from bench.judge.verdict import ends
from bench.report.page.parts import (
    REFERENCE_SPEED,
    Cell,
    Section,
    code,
    compared,
    counted,
    engine_cell,
    in_mb,
    missing,
    number,
    plain,
    quartiles,
    safe,
    table_of,
)
from bench.results import Accuracy, BatchingTrial, BenchRecord


def bulk_section(record: BenchRecord, summary: Summary) -> Section | None:
    """Show the scoring of many texts, and the batchings tried for it; None where neither was measured."""
    body = []
    if any(row.throughput for row in summary.rows):
        caption = "All evaluation texts in the batches that suit each engine best; medians and quartiles of restarts."
        body.append(table_of("bulk-table", caption, *_throughputs(record, summary)))
    if record.batching_trials:
        caption = (
            "Scoring of a part of the texts in each batching, before the rest: the median of the rounds, the slowest "
            "and the fastest of them. Each engine scores in bulk in the batching that was fastest for it."
        )
        body.append("<h3>Batchings tried</h3>")
        body.append(table_of("batching-table", caption, *_batchings(record, summary)))
    return Section("bulk", "In bulk", "\n".join(body)) if body else None


def _throughputs(record: BenchRecord, summary: Summary) -> tuple[list[str], list[list[Cell]]]:
    priced = record.config.price_per_hour is not None
    columns = ["Engine", "Batches of", "Texts/s", "Tokens/s", "Speed", *(["Cost of a million"] if priced else [])]
    rows = []
    for row in summary.rows:
        if (of := row.throughput) is None:
            continue
        is_reference = row.info.name == record.reference
        cost = [plain(of.cost_per_million, "{:,.2f}")] if of.cost_per_million is not None else []
        rows.append(
            [
                engine_cell(row, record),
                Cell(safe(of.batching), of.batching, is_word=True),
                quartiles(of.texts_per_s),
                plain(of.tokens_per_s, "{:,.0f}"),
                REFERENCE_SPEED if is_reference else compared(of.speed, of.verdict),
                *cost,
            ]
        )
    return columns, rows


def _batchings(record: BenchRecord, summary: Summary) -> tuple[list[str], list[list[Cell]]]:
    chosen = {bulk.engine: bulk.batching for bulk in record.bulks}
    rows = []
    for row in summary.rows:
        for trial in (trial for trial in record.batching_trials if trial.engine == row.info.name):
            is_chosen = trial.batching == chosen.get(trial.engine)
            tag = '<span class="tag chosen">chosen for bulk scoring</span>' if is_chosen else ""
            batching = Cell(safe(trial.batching) + tag, trial.batching, is_word=True)
            texts = Cell(f"{trial.texts:,}", trial.texts)
            rows.append([engine_cell(row, record), batching, _rate(trial), texts])
    return ["Engine", "Batching", "Texts/s", "Texts"], rows


def _rate(trial: BatchingTrial) -> Cell:
    per_s = [trial.texts / seconds for seconds in trial.seconds]
    middle = median(per_s)
    return Cell(f"{number(middle)}<small>{number(min(per_s))} to {number(max(per_s))}</small>", middle)


def accuracy_section(record: BenchRecord, summary: Summary) -> Section | None:
    """Show all scores, by class and by length too; None where nothing was scored."""
    scored = [(row, row.accuracy) for row in summary.rows if row.accuracy]
    if not scored:
        return None
    columns = [
        *("Engine", "Texts", "Accuracy, %", "Weighted F1, %", "Log loss", "Calibration error", "Brier score"),
        *("Turned wrong", "Turned right", "McNemar p"),
    ]
    rows = []
    for row, scores in scored:
        why = "the reference" if row.info.name == record.reference else "not measured"
        change = scores.change
        rows.append(
            [
                engine_cell(row, record),
                Cell(f"{scores.texts:,}", scores.texts),
                plain(100 * scores.accuracy, "{:.2f}"),
                plain(100 * scores.f1_weighted, "{:.2f}"),
                *(plain(value, "{:.4f}") for value in (scores.loss, scores.calibration_error, scores.brier)),
                plain(change.harmful, "{:,}") if change else missing(why),
                plain(change.helpful, "{:,}") if change else missing(why),
                missing(why) if scores.mcnemar_p is None else plain(scores.mcnemar_p, "{:.3g}"),
            ]
        )
    caption = (
        "Of loss, calibration error and Brier score less is better. Turned: answers that differ from the reference's."
    )
    body = [
        table_of("accuracy-table", caption, columns, rows),
        "<h3>Class by class</h3>",
        table_of("classes", "Percent of each class.", *_per_class(scored)),
        "<h3>By length of the text</h3>",
        table_of("lengths", "Accuracy in percent by tokens of the text.", *_per_length(scored)),
    ]
    return Section("accuracy", "Accuracy in detail", "\n".join(body))


def _per_class(scored: Sequence[tuple[Row, Accuracy]]) -> tuple[list[str], list[list[Cell]]]:
    rows = [
        [
            Cell(code(row.info.name), row.info.name),
            Cell(safe(of.label), of.label, is_word=True),
            Cell(f"{of.texts:,}", of.texts),
            *(plain(100 * share, "{:.2f}") for share in (of.precision, of.recall, of.f1)),
        ]
        for row, scores in scored
        for of in scores.classes
    ]
    return ["Engine", "Class", "Texts", "Precision, %", "Recall, %", "F1, %"], rows


def _per_length(scored: Sequence[tuple[Row, Accuracy]]) -> tuple[list[str], list[list[Cell]]]:
    buckets = sorted({(of.least, of.most, of.texts) for _, scores in scored for of in scores.lengths})
    rows = []
    for least, most, texts in buckets:
        cells = [Cell(f"{least:,} to {most:,}", least), Cell(f"{texts:,}", texts)]
        for _, scores in scored:
            found = [of.accuracy for of in scores.lengths if (of.least, of.most, of.texts) == (least, most, texts)]
            cells.append(plain(100 * found[0], "{:.2f}") if found else missing())
        rows.append(cells)
    return ["Tokens", "Texts", *(code(row.info.name) for row, _ in scored)], rows


def start_section(record: BenchRecord, summary: Summary) -> Section | None:
    """Show cold starts and memory; None where neither was measured."""
    body = []
    if starts := [(row, row.start) for row in summary.rows if row.start]:
        rows = [
            [
                engine_cell(row, record),
                quartiles(start.total_s),
                *(plain(s) for s in (start.import_s, start.load_s, start.first_s)),
            ]
            for row, start in starts
        ]
        columns = ["Engine", "All, s", "Import, s", "Load, s", "First answer, s"]
        caption = (
            "Cold start: a new process to its first answer, medians. All: with quartiles and the interpreter's start."
        )
        body.append(table_of("starts", caption, columns, rows))
    if remembered := [row for row in summary.rows if row.memory or row.growth_bytes]:
        columns = ["Engine", "Loaded, MB", "Peak, MB", "GPU, MB", "Growth, kB a call"]
        rows = [_memory(row, record) for row in remembered]
        body.append(table_of("memory-table", _memory_caption(record), columns, rows))
    return Section("start", "Start and memory", "\n".join(body)) if body else None


def _memory(row: Row, record: BenchRecord) -> list[Cell]:
    of = row.memory
    sizes = (of.loaded_bytes, of.peak_bytes, of.gpu_bytes) if of else (None, None, None)
    return [engine_cell(row, record), *map(in_mb, sizes), _growth(row.growth_bytes)]


def _memory_caption(record: BenchRecord) -> str:
    calls = max((len(soak.tokens) for soak in record.soaks), default=0)
    growth = (
        f" Growth: the slope over {counted(calls, 'call')} with texts of all lengths, after all else was measured, "
        "with its 95 % interval; the last process of each engine."
    )
    gpu = any(memory.gpu_bytes is not None for memory in record.memories)
    count = " GPU: what PyTorch allocated; for others the driver's count, CUDA context included." if gpu else ""
    return "Memory of the process: the largest of all restarts." + count + (growth if calls else "")


def _growth(growth: Interval | None) -> Cell:
    if growth is None:
        return missing()
    low, middle, high = (round(end / 1e3, 1) + 0.0 for end in (growth.low, growth.estimate, growth.high))
    return Cell(f"{middle:.1f}<small>{ends(Interval(low, middle, high), '{:.1f}')}</small>", growth.estimate)


def skipped_section(record: BenchRecord) -> Section | None:
    """Show which engines were not measured, and why; None where there are none."""
    if not record.skipped:
        return None
    rows = [[Cell(code(s.engine), s.engine), Cell(safe(s.reason), s.reason, is_word=True)] for s in record.skipped]
    table = table_of("skipped-table", "Engines that were not measured, and why.", ["Engine", "Reason"], rows)
    return Section("skipped", "Not measured", table)
