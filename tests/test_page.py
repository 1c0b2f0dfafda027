"""The benchmark's page: it shows all there is, escapes what it is given, and works in a browser without a network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_records import (
    BATCHINGS,
    CALLS,
    LEAK,
    LEVEL_CELL,
    MISSING_CELL,
    REFERENCE,
    RESTARTS,
    SECOND,
    make_record,
    make_summary,
)

from bench.judge.summarise import summarise
from bench.judge.summary import Recommendation
from bench.report.page.charts import latency_axis
from bench.report.page.page import render_page
from bench.results import BenchRecord, Skipped

pytest.importorskip("plotly", reason="the page's charts need plotly")

CHARTS = ["pareto-chart", "length-chart", "grid-chart-1", "grid-chart-8", "grid-chart-32", "spread-chart"]
EVIL = """</script><img src=x onerror="alert(1)"> & 'quoted'"""


def render(record: BenchRecord) -> str:
    return render_page(summarise(record))


def own_part(page: str) -> str:
    """Return the page without the source of the charts' library."""
    from plotly.offline import get_plotlyjs

    return page.replace(get_plotlyjs(), "")


def charts_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.DOTALL)
    assert found
    return {chart["id"]: chart for chart in json.loads(found[1])}


def table_of(page: str, name: str) -> list[list[str]]:
    """Return the texts of a table's body, a list a row."""
    found = re.search(rf'<table id="{name}">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    assert found
    rows = re.findall(r"<tr>(.*?)</tr>", found[1])
    return [
        [re.sub(r"<[^>]+>", " ", cell).strip() for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", row)] for row in rows
    ]


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(make_summary())


def test_all_engines_and_reasons_are_shown(page: str) -> None:
    record, recommendation = make_record(), make_summary().recommendation
    shown = re.sub(r"<[^>]+>", "", own_part(page))
    for info in record.engines:
        assert sum(info.name in row[0] for row in table_of(page, "overview")) == 1
    for line in (recommendation.sentence, *recommendation.rejected):
        assert line.replace("`", "") in shown
    for skipped in record.skipped:
        assert [skipped.engine, skipped.reason] in table_of(page, "skipped-table")
    assert SECOND in shown
    assert shown.count("other tool, for comparison") >= 2


def test_noise_floor_is_given(page: str) -> None:
    assert "counts as noise below 2.0 % one text at a time or below 2.0 % in bulk, or where its interval" in page


def test_overview_of_the_chosen(page: str) -> None:
    row = make_record().engines[3]
    cells = next(cells for cells in table_of(page, "overview") if cells[0].startswith(row.name))
    assert "recommended" in cells[0]
    assert cells[1] == "87.70"
    assert re.match(r"\+0\.20 .*\[-0\.\d\d, \+0\.\d\d\].*within budget", cells[2])
    assert re.match(r"2\.\d\d× .*\[2\.\d\d, 2\.\d\d\].*faster", cells[3])
    assert float(cells[7]) > float(cells[6]) > float(cells[5])
    assert re.sub(r"\s+", " ", cells[8]) == "needs 6,636 calls"
    assert cells[10:12] == ["67.9", "71.4"]


def test_every_percentile_has_a_column(page: str) -> None:
    found = re.search(r'<table id="overview">.*?</thead>', page, re.DOTALL)
    assert found
    assert re.findall(r">(p[\d.]+), ms<", found[0]) == ["p90", "p95", "p99", "p99.9"]


def test_what_was_not_measured_is_a_dash_with_a_reason(page: str) -> None:
    name, batch, _ = MISSING_CELL
    grid = next(cells for cells in table_of(page, "grid-table") if cells[:2] == [name, str(batch)])
    assert re.fullmatch(r"–\s+not measured", grid[-1])
    overview = {cells[0].split()[0]: cells for cells in table_of(page, "overview")}
    assert "the reference" in overview[REFERENCE][2]
    assert "not measured" in overview["openvino-fp32"][11]


def test_where_onnx_is_slower_is_said(page: str) -> None:
    assert "<code>onnx-fp32-cpu</code> at 8&nbsp;×&nbsp;512, 32&nbsp;×&nbsp;512" in page
    grid = next(cells for cells in table_of(page, "grid-table") if cells[:2] == ["onnx-fp32-cpu", "32"])
    assert grid[2].endswith("faster")
    assert grid[-1].endswith("slower")


def test_a_cell_of_the_grid_whose_interval_reaches_1_cannot_tell(page: str) -> None:
    name, batch, length = LEVEL_CELL
    grid = {(cells[0], cells[1]): cells[2:] for cells in table_of(page, "grid-table")}
    shown = grid[name, str(batch)][1]
    assert re.search(r"× \[0\.\d\d, 1\.\d\d\]\s+cannot tell$", shown)
    verdicts = ("faster", "slower", "cannot tell")
    assert all(cell.endswith(verdicts) for cell in grid["onnx-int8-cpu", "1"])
    assert not any(cell.endswith(verdicts) for cell in grid[REFERENCE, "1"])
    lines = {line["text"][0].split("<br>")[0]: line for line in charts_of(page)[f"grid-chart-{batch}"]["data"]}
    place = lines[name]["x"].index(length)
    assert lines[name]["text"][place].endswith("cannot tell")
    hollow = [colour == "var(--surface)" for colour in lines[name]["marker"]["color"]]
    assert hollow == [i == place for i in range(3)]


def test_by_length_a_verdict_is_what_its_interval_allows() -> None:
    record = make_record()
    same = {s.restart: s for s in record.singles if s.engine == REFERENCE}
    singles = tuple(
        replace(same[s.restart], engine=s.engine) if s.engine == "adapter-fp32-cpu" else s for s in record.singles
    )
    page = render(replace(record, singles=singles))
    names = re.findall(r"<code>(.*?)</code>", re.search(r'<table id="by-length">.*?</thead>', page, re.DOTALL)[0])  # type: ignore[index]
    rows = [dict(zip(names, cells[1:], strict=True)) for cells in table_of(page, "by-length")]
    assert len(rows) > 2
    assert all(row["onnx-int8-cpu"].endswith("faster") for row in rows)
    assert all(row["adapter-fp32-cpu"].endswith("cannot tell") for row in rows)


def test_a_difference_within_the_noise_is_not_claimed_by_its_median() -> None:
    record = make_record()
    few = tuple(g for g in record.grids if g.restart < 2)  # an interval of two is very wide
    page = render(replace(record, grids=few))
    assert all("slower" not in cell for cells in table_of(page, "grid-table") for cell in cells)
    assert "no engine is measurably slower than the reference" in page


def test_batchings_tried_are_shown_and_the_chosen_one_is_marked(page: str) -> None:
    record = make_record()
    rows = [[re.sub(r"\s+", " ", cell) for cell in cells] for cells in table_of(page, "batching-table")]
    for info in record.engines:
        tried = [cells for cells in rows if cells[0].split()[0] == info.name]
        assert [cells[1].removesuffix(" used for bulk scoring") for cells in tried] == list(BATCHINGS[info.is_peer])
        chosen = [cells for cells in tried if cells[1].endswith(" used for bulk scoring")]
        assert len(chosen) == 1
        assert float(chosen[0][2].split()[0]) == max(float(cells[2].split()[0]) for cells in tried)
    trial = record.batching_trials[0]
    slowest, middle, fastest = (f"{trial.texts / s:.1f}" for s in sorted(trial.seconds, reverse=True))
    first = next(cells for cells in rows if cells[0].split()[0] == trial.engine)
    assert first[2:] == [f"{middle} {slowest} to {fastest}", str(trial.texts)]


def test_memory_that_grows_is_distinguished_from_memory_that_does_not(page: str) -> None:
    growth = {cells[0].split()[0]: cells[4].split(maxsplit=1) for cells in table_of(page, "memory-table")}
    assert growth[LEAK][0] == "4.1"
    assert growth[REFERENCE] == ["0.0", "[0.0, 0.0]"]
    assert "Growth: the slope over 200 calls with texts of all lengths, after all other measurements" in page


def test_memory_that_is_unknown_is_not_measured() -> None:
    record = make_record()
    unknown = tuple(replace(m, loaded_bytes=None, peak_bytes=None, gpu_bytes=None) for m in record.memories)
    page = render(replace(record, memories=unknown, soaks=tuple(replace(s, rss_bytes=()) for s in record.soaks)))
    assert all("not measured" in cell for cells in table_of(page, "memory-table") for cell in cells[1:])
    assert all("not measured" in cells[13] for cells in table_of(page, "overview"))


def test_method_explains_the_order_of_the_starts(page: str) -> None:
    foot = page[page.index('<section id="method"') :]
    assert "Every second restart starts them in the opposite order" in foot
    assert "spread evenly over the lengths of the texts" in foot


def test_chart_data_is_what_was_measured(page: str) -> None:
    record, summary = make_record(), make_summary()
    charts = charts_of(page)
    assert list(charts) == CHARTS
    points = {trace["text"][0]: trace for trace in charts["pareto-chart"]["data"] if "error_y" in trace}
    assert set(points) == {info.name for info in record.engines}
    row = summary.row("onnx-int8-cpu")
    assert row
    assert row.latency
    assert row.accuracy
    assert points["onnx-int8-cpu"]["x"] == [row.latency.total_s.median * 1e3]
    assert points["onnx-int8-cpu"]["y"] == [100 * row.accuracy.accuracy]
    assert points[REFERENCE]["error_y"]["array"] == [0.0]
    boxes = charts["spread-chart"]["data"]
    assert [len(box["x"][0]) for box in boxes] == [RESTARTS * CALLS] * (len(record.engines) + 1)
    lines = charts["length-chart"]["data"]
    assert all(line["x"] == sorted(line["x"]) and len(line["x"]) == 8 for line in lines)


def test_an_engine_looks_the_same_in_every_chart_and_like_no_other(page: str) -> None:
    charts = charts_of(page)
    marks = {
        trace["text"][0].split("<br>")[0]: (trace["marker"]["color"], trace["marker"]["symbol"].removesuffix("-open"))
        for trace in charts["pareto-chart"]["data"]
        if "error_y" in trace
    }
    assert len(set(marks.values())) == len(marks)
    for chart in CHARTS[1:5]:
        for line in charts[chart]["data"]:
            assert marks[line["text"][0].split("<br>")[0]] == (line["line"]["color"], line["marker"]["symbol"])


def test_same_record_same_page(page: str) -> None:
    make_record.cache_clear()
    assert render(make_record()) == page


def test_page_loads_nothing(page: str) -> None:
    own = own_part(page)
    assert "http://" not in own
    assert "https://" not in own
    assert not re.search(r"@import|url\(|\bsrc=|fetch\(|XMLHttpRequest", own)
    assert re.findall(r'<link [^>]*href="([^"]*)"', own) == ["data:,"]
    assert "default-src 'none'" in own


@pytest.mark.parametrize(("complete", "banners"), [(True, 0), (False, 1)])
def test_partial_benchmark_says_so(complete: bool, banners: int) -> None:
    assert render_page(replace(make_summary(), is_complete=complete)).count("This benchmark is partial") == banners


def evil_record() -> BenchRecord:
    """Return the record with markup in every text that comes from files and users."""
    record = make_record()

    def named(name: str) -> str:
        return f"{name}{EVIL}" if name == "onnx-int8-cpu" else name

    def renamed(rows: Any) -> Any:
        return tuple(replace(row, engine=named(row.engine)) for row in rows)

    classes = [tuple(replace(c, label=c.label + EVIL) for c in a.classes) for a in record.accuracies]
    return replace(
        record,
        config=replace(record.config, run_dir=Path(f"runs/{EVIL}")),
        label_names=tuple(label + EVIL for label in record.label_names),
        engines=tuple(replace(info, name=named(info.name)) for info in record.engines),
        skipped=(Skipped(f"x{EVIL}", EVIL),),
        accuracies=renamed(replace(a, classes=c) for a, c in zip(record.accuracies, classes, strict=True)),
        singles=renamed(record.singles),
        batching_trials=renamed(replace(trial, batching=EVIL) for trial in record.batching_trials),
        bulks=renamed(replace(bulk, batching=EVIL) for bulk in record.bulks),
        grids=renamed(record.grids),
        cold_starts=renamed(record.cold_starts),
        memories=renamed(record.memories),
        soaks=renamed(record.soaks),
        environment=replace(record.environment, cpu=EVIL, system=EVIL, gpu=EVIL, versions={EVIL: EVIL}),
        chosen=EVIL,
        finished_at=EVIL,
    )


def test_texts_cannot_become_markup(page: str) -> None:
    record = evil_record()
    recommendation = Recommendation(record.engines[3].name, EVIL, (f"`{EVIL}`",))
    evil = render_page(replace(summarise(record), recommendation=recommendation))
    assert "<img" not in own_part(evil)
    assert evil.count("</script>") == page.count("</script>")
    names = {trace["text"][0] for trace in charts_of(evil)["pareto-chart"]["data"] if "error_y" in trace}
    assert any("&lt;/script&gt;&lt;img" in name for name in names)


def test_little_was_measured() -> None:
    record = make_record()
    bare = replace(
        record,
        is_complete=False,
        second_process=None,
        machine=None,
        skipped=(),
        accuracies=(),
        singles=(),
        batching_trials=(),
        bulks=(),
        grids=(),
        cold_starts=(),
        memories=(),
        soaks=(),
    )
    page = render(bare)
    assert charts_of(page) == {}
    assert "No engine that can be shipped was measured" in page
    assert "had no second process to measure the noise with" in page
    assert len(table_of(page, "overview")) == len(record.engines)


def test_one_restart_of_two_calls() -> None:
    record = make_record()
    short = [s for s in record.singles if s.restart == 0]
    cut = [
        replace(
            s,
            tokens=s.tokens[:2],
            total_s=s.total_s[:2],
            tokenise_s=s.tokenise_s[:2],
            run_s=s.run_s[:2],
        )
        for s in short
    ]
    bulks = tuple(replace(b, texts=b.texts[:1], tokens=b.tokens[:1], seconds=b.seconds[:1]) for b in record.bulks[:7])
    page = render(replace(record, singles=tuple(cut), bulks=bulks, own_tokens=(100, 200)))
    assert "no interval" in page
    assert "∞" not in page
    assert "Expected p95 of your texts" not in page  # of two calls there is none
    assert "Expected p95 of your texts" in render(replace(record, own_tokens=(100, 200)))


def test_price_and_far_apart_latencies() -> None:
    record = make_record()
    slow = tuple(
        replace(s, total_s=tuple(20 * t for t in s.total_s)) if s.engine == "adapter-fp32-cpu" else s
        for s in record.singles
    )
    page = render(replace(record, singles=slow, config=replace(record.config, price_per_hour=0.5)))
    assert "Cost per million texts" in page
    assert charts_of(page)["pareto-chart"]["layout"]["xaxis"]["type"] == "log"


def test_frontier_joins_what_no_other_beats(page: str) -> None:
    record = make_record()
    line = charts_of(page)["pareto-chart"]["data"][0]
    assert line["y"] == pytest.approx([87.7])  # int8 is the fastest and the most accurate
    worse = tuple(replace(a, accuracy=0.86) if a.engine == "onnx-int8-cpu" else a for a in record.accuracies)
    line = charts_of(render(replace(record, accuracies=worse)))["pareto-chart"]["data"][0]
    assert line["y"] == pytest.approx([86.0, 87.5])  # then onnx-fp32; openvino is a peer, the others are slower
    assert line["x"] == sorted(line["x"])


@pytest.mark.parametrize(
    ("low", "high"),
    [(5.1, 260.0), (0.2, 0.9), (25.0, 40.0), (300.0, 450.0), (99.0, 101.0), (1.0, 1.0), (0.01, 20_000.0)],
)
def test_latency_axis_holds_all_and_has_ticks(low: float, high: float) -> None:
    axis = latency_axis("ms", low, high, is_log=True)
    assert axis["range"][0] <= np.log10(low) <= np.log10(high) <= axis["range"][1]
    assert len(axis["tickvals"]) >= 3
    assert all(axis["range"][0] <= np.log10(tick) <= axis["range"][1] for tick in axis["tickvals"])
    assert len(set(axis["ticktext"])) == len(axis["tickvals"])


# In a browser.


@pytest.fixture(scope="module")
def page_file(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "bench.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    paths = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome")]
    if not any(paths):
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=next(filter(None, paths)), args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page in a browser, and what went wrong in it."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
        self.tab = self.context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.tab.on("console", lambda message: self.messages.append(message.text))
        self.tab.on("pageerror", lambda error: self.messages.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(path.as_uri())
        self.tab.wait_for_selector(f"#{CHARTS[-1]} svg")

    def style(self, selector: str, name: str) -> str:
        return str(self.tab.eval_on_selector(selector, f"element => getComputedStyle(element).{name}"))


@pytest.fixture(scope="module")
def opened(browser: Any, page_file: Path) -> Iterator[Opened]:
    opened = Opened(browser, page_file)
    yield opened
    opened.context.close()


def contrast(one: str, other: str) -> float:
    """Return the contrast of two `rgb()` colours.

    Source: WCAG 2.2, "relative luminance" and "contrast ratio".
    """

    def luminance(colour: str) -> float:
        shares = np.array([int(part) / 255 for part in re.findall(r"\d+", colour)[:3]])
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_browser_is_content_and_asks_for_nothing(opened: Opened, page_file: Path) -> None:
    assert opened.messages == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page_file.as_uri()]


def test_every_chart_is_drawn_and_described(opened: Opened) -> None:
    for name in CHARTS:
        chart = opened.tab.locator(f"#{name}")
        assert chart.locator("svg.main-svg").count() >= 1
        assert chart.locator("path.point, .boxes path").count() >= 3
        for attribute in ("aria-labelledby", "aria-describedby"):
            assert opened.tab.locator(f"#{chart.get_attribute(attribute)}").inner_text().strip()


def first_column(opened: Opened, table: str) -> list[str]:
    return [text.split()[0] for text in opened.tab.locator(f"#{table} tbody th").all_inner_texts()]


def test_table_sorts_by_click_and_by_key(opened: Opened) -> None:
    by_median = [
        row.info.name for row in sorted(make_summary().rows, key=lambda r: r.latency.total_s.median if r.latency else 0)
    ]
    header = opened.tab.locator("#overview thead th", has_text="Median")
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert first_column(opened, "overview") == by_median
    header.locator("button").focus()
    opened.tab.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert first_column(opened, "overview") == by_median[::-1]
    engine = opened.tab.locator("#overview thead th", has_text="Engine")
    engine.locator("button").focus()
    opened.tab.keyboard.press("Space")
    assert first_column(opened, "overview") == sorted(by_median)
    assert header.get_attribute("aria-sort") is None


def test_what_was_not_measured_is_sorted_last(opened: Opened) -> None:
    header = opened.tab.locator("#overview thead th", has_text="Packages")
    for _ in range(2):
        header.locator("button").click()
        assert first_column(opened, "overview")[-1] == "openvino-fp32"


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_fits_the_screen(opened: Opened, width: int) -> None:
    opened.tab.set_viewport_size({"width": width, "height": 844})
    opened.tab.wait_for_timeout(300)  # until the charts have followed
    assert opened.tab.evaluate("document.documentElement.scrollWidth") == width
    outside = """charts => charts.flatMap(chart => {
        const frame = chart.getBoundingClientRect();
        return [...chart.querySelectorAll("text")].filter(text => {
            const box = text.getBoundingClientRect();
            const isWide = box.left < frame.left - 1 || box.right > frame.right + 1;
            return box.width && (isWide || box.bottom > frame.bottom + 1);
        }).map(text => text.textContent);
    })"""
    assert opened.tab.eval_on_selector_all(".chart", outside) == []


@pytest.mark.parametrize("width", [390, 1440])
def test_names_of_points_do_not_overlap(opened: Opened, width: int) -> None:
    opened.tab.set_viewport_size({"width": width, "height": 844})
    opened.tab.wait_for_timeout(300)
    boxes = opened.tab.eval_on_selector_all(
        "#pareto-chart .textpoint text, #pareto-chart .point",
        "all => all.map(e => e.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])",
    )
    names = opened.tab.locator("#pareto-chart .textpoint text").count()
    assert names == len(make_record().engines)
    for i, (left, top, right, bottom) in enumerate(boxes[-names:], len(boxes) - names):
        for other in boxes[:i]:
            assert not (left < other[2] and other[0] < right and top < other[3] and other[1] < bottom)


def test_text_is_large_enough_to_read(opened: Opened) -> None:
    size = "all => Math.min(...all.map(e => parseFloat(getComputedStyle(e).fontSize)))"
    assert opened.tab.eval_on_selector_all("p, li, dd, dt, td, th, small, code, caption", size) >= 12
    assert opened.tab.eval_on_selector_all(".chart text", size) >= 12


def test_dark_and_light_have_contrast(opened: Opened) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        opened.tab.emulate_media(color_scheme=scheme)
        opened.tab.wait_for_function(
            "ink => document.querySelector('#pareto-chart .xtick text').style.fill === ink",
            arg=opened.style("body", "color"),
        )
        paper = opened.style("section", "backgroundColor")
        texts = ["#pareto-chart .xtick text", "#pareto-chart .textpoint text", "#spread-chart .annotation-text"]
        colours = opened.tab.eval_on_selector_all(", ".join(texts), "all => all.map(e => getComputedStyle(e).fill)")
        words = [
            opened.style(of, "color") for of in ("p", "small", "a[href='#overview']", ".good", ".bad", ".tag.chosen")
        ]
        assert all(contrast(colour, paper) >= 4.5 for colour in [*colours, *words])
        seen[scheme] = (paper, tuple(colours))
    assert seen["light"][0] != seen["dark"][0]
    assert not set(seen["light"][1]) & set(seen["dark"][1])
    opened.tab.emulate_media(color_scheme="light")


def test_keyboard_reaches_the_content(opened: Opened) -> None:
    opened.tab.reload()
    opened.tab.keyboard.press("Tab")
    assert opened.tab.evaluate("document.activeElement.className") == "skip"
    assert float(opened.style(".skip:focus", "top").removesuffix("px")) >= 0
    opened.tab.keyboard.press("Enter")
    assert opened.tab.evaluate("document.activeElement.id") == "main"


def test_markup_is_what_screen_readers_need(opened: Opened) -> None:
    count = opened.tab.locator
    assert count("html[lang]").count() == count("h1").count() == count("main").count() == count("footer").count() == 1
    assert count("table").count() == count("table > caption").count() == count(".scroll[tabindex='0'] > table").count()
    assert count("thead th:not([scope=col])").count() == count("tbody th:not([scope=row])").count() == 0
    ids = opened.tab.eval_on_selector_all("[id]", "all => all.map(e => e.id).filter(id => !id.includes('-clip'))")
    assert len(ids) == len(set(ids))
    levels = opened.tab.eval_on_selector_all("h1, h2, h3", "all => all.map(e => Number(e.tagName[1]))")
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_evil_texts_are_only_shown(browser: Any, tmp_path: Path) -> None:
    summary = replace(summarise(evil_record()), recommendation=Recommendation(None, EVIL, ()))
    path = tmp_path / "evil.html"
    path.write_text(render_page(summary), encoding="utf-8")
    opened = Opened(browser, path)
    assert opened.messages == []
    assert opened.tab.locator("img").count() == 0
    assert "</script><img src=x" in opened.tab.locator("#pareto-chart").inner_text()
    opened.context.close()


def test_last_message(opened: Opened) -> None:
    """Nothing that the tests above did made the page complain."""
    assert opened.messages == []
