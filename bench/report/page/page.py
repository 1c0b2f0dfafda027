"""A benchmark as one self-contained HTML page: the verdict, charts, and sortable tables. Pure functions.

The page asks no network for anything, and its content security policy forbids it to. Charts are drawn by Plotly, whose
source stands in the page; colours live in `page.css` alone, where the charts read them too. A new section is a file and
a line in `SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.judge.summary import Summary
from bench.report.page.accuracy import accuracy_section
from bench.report.page.bulk import bulk_section
from bench.report.page.cascade import cascade_section
from bench.report.page.charts import inline_json
from bench.report.page.grid import grid_section
from bench.report.page.length import length_section
from bench.report.page.method import method_section, skipped_section
from bench.report.page.overview import overview_section
from bench.report.page.parts import Section, counted, lines, safe
from bench.report.page.resources import resources_section
from bench.report.page.spread import spread_section
from bench.report.page.verdict import verdict_section

HERE = Path(__file__).parent
SECTIONS: tuple[Callable[[Summary], Section | None], ...] = (
    verdict_section,
    overview_section,
    length_section,
    grid_section,
    spread_section,
    bulk_section,
    cascade_section,
    accuracy_section,
    resources_section,
    skipped_section,
)
"""In their order; a section that has nothing to show is None."""


def render_page(summary: Summary) -> str:
    """Render a benchmark as an HTML page that needs nothing beside it: 5 MB, nearly all of it the charts' library."""
    from plotly.offline import get_plotlyjs  # takes a tenth of a second, which only this page should cost

    sections = [section for make in SECTIONS if (section := make(summary))]
    method = method_section(summary)
    charts = [chart for section in sections for chart in section.charts]
    drawn = [{"id": chart.name, "data": chart.data, "layout": chart.layout} for chart in charts]
    title = f"Benchmark of {safe(summary.config.run_dir)}"
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
{(HERE / "page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the verdict</a>
<header>
<h1>{title}</h1>
<p class="soft">{_subtitle(summary)}</p>
<nav aria-label="Sections"><ul>
{lines(f'<li><a href="#{s.name}">{s.title}</a></li>' for s in [*sections, method])}
</ul></nav>
</header>
<main id="main" tabindex="-1">
{_banner(summary)}
<noscript><p class="banner">Charts and sorting need JavaScript; the tables hold all numbers.</p></noscript>
{lines(s.html for s in sections)}
</main>
<footer>
{method.html}
</footer>
<script type="application/json" id="charts">{inline_json(drawn)}</script>
<script>{get_plotlyjs()}</script>
<script>
{(HERE / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _subtitle(summary: Summary) -> str:
    parts = [
        f"{len(summary.labels):,} {'pairs of ' * summary.pairs}texts for accuracy",
        f"{summary.restarts} × {summary.calls} timed calls per engine",
        f"{safe(summary.environment.cpu)}, {counted(summary.environment.threads, 'thread')}",
        safe(summary.finished_at),
    ]
    return " · ".join(parts)


def _banner(summary: Summary) -> str:
    if summary.is_complete:
        return ""
    return (
        '<p class="banner" role="note">This benchmark is partial: it was interrupted or is still running. '
        "What is missing may change the verdict.</p>"
    )
