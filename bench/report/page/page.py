"""A benchmark as one self-contained HTML page: the verdict, charts, and sortable tables. Pure functions.

The page asks no network for anything, and its content security policy forbids it to. Charts are drawn by Plotly, whose
source stands in the page; colours live in `page.css` alone, where the charts read them too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.config import LEAST_PAIRS
from bench.judge.summary import Summary
from bench.judge.verdict import Recommendation
from bench.report.page.charts import inline_json, looks_of
from bench.report.page.latency import grid_section, length_section, spread_section
from bench.report.page.parts import Section, counted, lines, safe
from bench.report.page.tables import accuracy_section, bulk_section, skipped_section, start_section
from bench.report.page.verdict import overview_section, verdict_section
from bench.results import BenchRecord

HERE = Path(__file__).parent


def render_page(record: BenchRecord, summary: Summary, recommendation: Recommendation) -> str:
    """Render a benchmark as an HTML page that needs nothing beside it.

    Args:
        record: what was measured.
        summary: its statistics, as `summarise` derives them.
        recommendation: what to ship, as `recommend` chooses it.

    Returns:
        The page, of about 5 MB, nearly all of it the charts' library.
    """
    looks = looks_of(record)
    sections = [
        verdict_section(record, summary, recommendation),
        overview_section(record, summary, recommendation, looks),
        length_section(record, summary, looks),
        grid_section(record, summary, looks),
        spread_section(record, summary, looks),
        bulk_section(record, summary),
        accuracy_section(record, summary),
        start_section(record, summary),
        skipped_section(record),
    ]
    return _document(record, [section for section in sections if section])


def _document(record: BenchRecord, sections: Sequence[Section]) -> str:
    from plotly.offline import get_plotlyjs  # takes a tenth of a second, which only this page should cost

    charts = [chart for section in sections for chart in section.charts]
    drawn = [{"id": chart.name, "data": chart.data, "layout": chart.layout} for chart in charts]
    title = f"Benchmark of {safe(record.config.run_dir)}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{_read("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the verdict</a>
<header>
<h1>{title}</h1>
<p class="soft">{_subtitle(record)}</p>
<nav aria-label="Sections"><ul>
{lines(f'<li><a href="#{s.name}">{s.title}</a></li>' for s in sections)}
<li><a href="#method">Method and environment</a></li>
</ul></nav>
</header>
<main id="main" tabindex="-1">
{_banner(record)}
<noscript><p class="banner">Charts and sorting need JavaScript; the tables hold all numbers.</p></noscript>
{lines(s.html for s in sections)}
</main>
<footer>
{_foot(record)}
</footer>
<script type="application/json" id="charts">{inline_json(drawn)}</script>
<script>{get_plotlyjs()}</script>
<script>
{_read("page.js")}</script>
</body>
</html>
"""


def _subtitle(record: BenchRecord) -> str:
    restarts = len({single.restart for single in record.singles})
    calls = max((len(single.total_s) for single in record.singles), default=0)
    parts = [
        f"{len(record.labels):,} texts for accuracy",
        f"{restarts} × {calls} timed calls an engine",
        f"{safe(record.environment.cpu)}, {counted(record.environment.threads, 'thread')}",
        safe(record.finished_at),
    ]
    return " · ".join(parts)


def _banner(record: BenchRecord) -> str:
    if record.is_complete:
        return ""
    return (
        '<p class="banner" role="note">This benchmark is partial: it was interrupted or still runs. '
        "What is missing may change the verdict.</p>"
    )


def _foot(record: BenchRecord) -> str:
    method = [
        "Every engine answers the same texts in its own process. All take turns, text by text, so that a drift "
        "of the machine hits all alike; warm-up calls are not counted.",
        "The calls one text at a time are spread evenly over the lengths of the texts.",
        f"Processes were restarted {counted(record.config.restarts, 'time')}: each restart is a restart. Each "
        "second one starts the processes in the opposite order of the one before, since a process started earlier can "
        f"be slower; from {2 * LEAST_PAIRS} restarts on, two such are one repetition for the intervals, below that "
        "each is one. A speed is the mean of the repetitions' medians, and its interval shows how much they differ; "
        "one by one and in bulk it is never narrower than the noise of the reference alone allows. Intervals of speed "
        "hold with 99&nbsp;%, those of accuracy and memory with 95&nbsp;%.",
        f"Accuracy is within budget if the lower end of its change is above -{record.config.max_drop:g} points. "
        "A speed is told apart from the reference's only beyond the noise floor in the verdict.",
        "A percentile is shown where there are calls enough to estimate it. Of attainable: the share of what the "
        "machine can do at most, by its fastest matrix product and its memory.",
    ]
    paragraphs = lines(f"<p>{text}</p>" for text in method)
    return (
        f'<section id="method" aria-labelledby="method-title">\n'
        f'<h2 id="method-title">Method and environment</h2>\n{paragraphs}\n'
        f"<h3>Environment</h3>\n{_facts(_environment(record))}\n<h3>Asked for</h3>\n{_facts(_asked(record))}\n"
        "</section>"
    )


def _environment(record: BenchRecord) -> list[tuple[str, str]]:
    of = record.environment
    facts = [
        ("system", of.system),
        ("CPU", of.cpu),
        ("instruction sets", ", ".join(of.instruction_sets) or "none known"),
        ("threads", f"{of.threads} of {counted(of.usable_cores, 'usable core')}"),
        ("GPU", of.gpu or "none"),
        *of.versions.items(),
    ]
    if machine := record.machine:
        facts += [(f"fastest {m.precision} product", f"{m.flops / 1e9:,.0f} GFLOP/s") for m in machine.limits]
        facts.append(("memory bandwidth", f"{machine.bytes_per_s / 1e9:,.1f} GB/s"))
    return [
        *facts,
        ("measured", f"in {record.duration_s / 60:.0f} min, until {record.finished_at}"),
        ("exporter chose", record.chosen),
        ("export.json", f"SHA-256 {record.export_sha256}"),
    ]


def _asked(record: BenchRecord) -> list[tuple[str, str]]:
    def shown(value: object) -> str:
        return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    asked = asdict(record.config).items()
    given = [
        (name, "yes" if value is True else shown(value))
        for name, value in asked
        if value is not None and value is not False
    ]
    return [(f"--{name.replace('_', '-')}", value) for name, value in given]


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return (
        f'<dl class="facts">\n{lines(f"<dt>{safe(name)}</dt><dd>{safe(value)}</dd>" for name, value in facts)}\n</dl>'
    )


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
