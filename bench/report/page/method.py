"""What was not measured, how the rest was, and on what."""

from __future__ import annotations

from dataclasses import asdict

from bench.config import LEAST_PAIRS
from bench.judge.interval import percent_text
from bench.judge.summary import Summary
from bench.report.circumstances import circumstances
from bench.report.page.cells import name_cell, table_of, word
from bench.report.page.parts import PAIRS, Section, counted, facts, lines, marked
from trainer.flags import flag_of


def skipped_section(summary: Summary) -> Section | None:
    """Show which engines were not measured, and why; None where there are none."""
    if not summary.skipped:
        return None
    rows = [{"Engine": name_cell(skipped.engine), "Reason": word(skipped.reason)} for skipped in summary.skipped]
    table = table_of("skipped-table", "Engines that were not measured, and why.", rows)
    return Section("skipped", "Not measured", table)


def method_section(summary: Summary) -> Section:
    """Say how it was measured, on what, and with which flags."""
    paragraphs = [
        *((PAIRS,) if summary.pairs else ()),
        "Every engine answers the same texts in its own process. The engines take turns, text by text, so that a drift "
        "of the machine affects all alike. Warm-up calls are not counted.",
        "The calls with one text at a time are spread evenly over the lengths of the texts.",
        f"All processes were restarted {counted(summary.restarts, 'time')}. Every second restart starts them in "
        "the opposite order, since a process that starts earlier can be slower. "
        f"From {2 * LEAST_PAIRS} restarts on, two such restarts form a pair of restarts, and intervals are computed "
        "over pairs; below that, over single restarts. A speed is the mean of the pairs' medians, and its interval "
        "shows how much they differ. One text at a time and in bulk, it is never narrower than the noise of the "
        "reference alone allows. Confidence is "
        f"{percent_text(summary.confidence)}&nbsp;% for intervals of speed, and 95&nbsp;% for those of accuracy "
        "and memory.",
        f"Accuracy is within budget if the lower end of its change is above -{summary.config.max_drop:g} points. An "
        "engine counts as faster or slower only beyond the noise given in the verdict.",
        "A percentile is shown where there are enough calls to estimate it. Of roofline: the share of the speed that "
        "this machine allows at most, given its fastest matrix product and its memory bandwidth.",
    ]
    paragraphs += [marked(text) for text in circumstances(summary)]
    body = [
        *(f"<p>{text}</p>" for text in paragraphs),
        f"<h3>Environment</h3>\n{facts(_environment(summary))}",
        f"<h3>Flags</h3>\n{facts(_flags(summary))}",
    ]
    return Section("method", "Method and environment", lines(body))


def _environment(summary: Summary) -> list[tuple[str, str]]:
    environment, machine = summary.environment, summary.machine
    pairs = [
        ("system", environment.system),
        ("CPU", environment.cpu),
        ("instruction sets", ", ".join(environment.instruction_sets) or "none known"),
        ("threads", f"{environment.threads} of {counted(environment.usable_cores, 'usable core')}"),
        ("GPU", environment.gpu or "none"),
        *_card(summary),
        *environment.versions.items(),
    ]
    if machine:
        pairs += [(f"fastest {m.precision} product", f"{m.flops / 1e9:,.0f} GFLOP/s") for m in machine.limits]
        pairs.append(("memory bandwidth", f"{machine.bytes_per_s / 1e9:,.1f} GB/s"))
    if summary.others and summary.others.load is not None:
        pairs.append(("highest load", f"{summary.others.load:.1f}, the benchmark's own processes included"))
    return [
        *pairs,
        ("duration", f"{summary.duration_s / 60:.0f} min, until {summary.finished_at}"),
        ("chosen by the exporter", summary.chosen),
        ("export.json", f"SHA-256 {summary.export_sha256}"),
    ]


def _card(summary: Summary) -> list[tuple[str, str]]:
    card, clocks = summary.environment.card, summary.others.gpu_clocks_hz if summary.others else None
    pairs = []
    if card and card.driver:
        pairs.append(("GPU driver", card.driver))
    if card and card.memory_bytes:
        pairs.append(("GPU memory", f"{card.memory_bytes / 1e9:.0f} GB"))
    if clocks:
        begin, end = (f"{hz / 1e6:,.0f} MHz" for hz in clocks)
        pairs.append(("GPU clock", f"{begin} at the beginning, {end} at the end"))
    return pairs


def _flags(summary: Summary) -> list[tuple[str, str]]:
    def shown(value: object) -> str:
        return "yes" if value is True else ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    given = {name: value for name, value in asdict(summary.config).items() if value is not None and value is not False}
    return [(flag_of(name), shown(value)) for name, value in given.items()]
