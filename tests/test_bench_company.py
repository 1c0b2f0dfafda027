"""Who else used the cores while it was measured: read from the kernel, said in a sentence, too much for a verdict."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bench_records import REFERENCE, make_record, make_summary

from bench.judge.against import WorseError, compare, refuse_worse
from bench.judge.company import MOST_COMPANY, Others, company_text, others_of
from bench.judge.stats import verdict as verdict_of
from bench.judge.summarise import summarise
from bench.measure.company import Watch, own_ticks, read_account, read_clock, throttled_seconds
from bench.report.page.page import render_page
from bench.report.tables import comma_separated, markdown, notes
from bench.results import BenchRecord, Company
from trainer.errors import UserError

HERTZ = os.sysconf("SC_CLK_TCK")
STAT = """cpu  999999 0 0 0 0 0 0 0 0 0
cpu0 {0} 2 3 1000 50 4 5 {1} 70 0
cpu1 {0} 2 3 1000 50 4 5 {1} 0 0
cpu2 888888 2 3 1000 50 4 5 77777 0 0
intr 1 2
"""


def make_proc(folder: Path, user: int, stolen: int, processes: dict[int, tuple[int, int, int]]) -> Path:
    """Write what the kernel shows of two cores, and of processes: the parent, own ticks, those of ended children."""
    folder.mkdir(exist_ok=True)
    (folder / "stat").write_text(STAT.format(user, stolen))
    for pid, (parent, own, ended) in processes.items():
        (folder / str(pid)).mkdir(exist_ok=True)
        (folder / str(pid) / "stat").write_text(
            f"{pid} (a ) b) S {parent} 0 0 0 0 0 0 0 0 0 {own} 1 {ended} 1 20 0 1 0"
        )
    return folder


def company(restart: int, others_s: float | None, stolen_s: float | None = 0.0, clock: float = 2e9) -> Company:
    return Company(restart, 2, 10.0, None if others_s is None else 15.0, others_s, stolen_s, 3.25, (clock,))


class TestTheKernelsAccounts:
    def test_what_a_core_did_and_what_was_stolen_from_it(self, tmp_path: Path) -> None:
        proc = make_proc(tmp_path / "proc", 100, 40, {})
        account = read_account({0, 1}, proc, lambda: 5.0)
        assert account
        assert account.wall_s == 5
        assert account.busy_s * HERTZ == pytest.approx(2 * (100 + 2 + 3 + 4 + 5))  # neither idle nor waiting for a disk
        assert account.stolen_s * HERTZ == pytest.approx(80)

    def test_own_time_is_that_of_all_descendants_alive_or_ended(self, tmp_path: Path) -> None:
        processes = {10: (1, 100, 1000), 11: (10, 20, 0), 12: (11, 3, 0), 13: (1, 50_000, 0)}
        assert own_ticks(make_proc(tmp_path / "proc", 0, 0, processes), 10) == 100 + 1000 + 2 + 20 + 2 + 3 + 2

    def test_the_rest_is_the_companys(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "getpid", lambda: 10)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
        now = [100.0]
        proc = make_proc(tmp_path / "proc", 0, 0, {10: (1, 0, 0)})
        watch = Watch(2, proc, tmp_path, lambda: now[0], tmp_path, list)
        make_proc(proc, 5 * HERTZ, HERTZ // 2, {10: (1, 6 * HERTZ, 0)})
        now[0] += 20
        seen = watch.company(7)
        assert (seen.restart, seen.cores, seen.wall_s) == (7, 2, 20)
        assert (seen.own_s, seen.others_s, seen.stolen_s) == pytest.approx((6, 4, 1))
        assert (seen.beside_s, seen.throttled_s, seen.gpu_clocks_hz) == (0, 0, ())

    def test_what_is_done_on_the_other_hyperthreads_and_what_a_quota_stops_are_seen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
        for core, siblings in {0: "0,2", 1: "1"}.items():
            (tmp_path / f"cpu{core}" / "topology").mkdir(parents=True)
            (tmp_path / f"cpu{core}" / "topology" / "thread_siblings_list").write_text(siblings)
        proc, now = make_proc(tmp_path / "proc", 0, 0, {os.getpid(): (1, 0, 0)}), [0.0]
        (tmp_path / "cpu.stat").write_text("usage_usec 5\nthrottled_usec 1000000\n")
        watch = Watch(2, proc, tmp_path, lambda: now[0], tmp_path, lambda: [now[0]])
        stat = (proc / "stat").read_text()
        (proc / "stat").write_text(stat.replace("cpu2 888888", f"cpu2 {888888 + 3 * HERTZ}"))
        (tmp_path / "cpu.stat").write_text("usage_usec 5\nthrottled_usec 1500000\n")
        now[0] = 10.0
        seen = watch.company(0)
        assert (seen.others_s, seen.beside_s, seen.throttled_s) == pytest.approx((0, 3, 0.5))
        assert seen.gpu_clocks_hz == (10.0,)
        others = others_of([seen])
        assert others
        assert (others.used, others.beside, others.throttled) == pytest.approx((0.35, 0.3, 0.05))
        assert others.is_too_much
        assert "0.3 of that on other hyperthreads of the same cores" in company_text(others)
        assert "0.05 of that while a quota stopped the benchmark" in company_text(others)

    def test_quotas_are_read_in_both_versions_of_the_kernels_groups(self, tmp_path: Path) -> None:
        assert throttled_seconds(tmp_path) == 0
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.stat").write_text("nr_periods 3\nthrottled_time 2500000000\n")
        assert throttled_seconds(tmp_path) == 2.5
        (tmp_path / "cpu.stat").write_text("usage_usec 7\n")  # of the root, which has no quota
        assert throttled_seconds(tmp_path) == 0

    @pytest.mark.parametrize("stat", [None, "cpu0 1\n", "cpu5 1 2 3 4 5 6 7 8 9 10\n", "nonsense"])
    def test_where_there_is_no_account_it_is_not_known(self, tmp_path: Path, stat: str | None) -> None:
        if stat:
            (tmp_path / "stat").write_text(stat)
        assert read_account({0}, tmp_path) is None
        seen = Watch(1, tmp_path, tmp_path).company(0)
        assert (seen.own_s, seen.others_s, seen.stolen_s, seen.clocks_hz) == (None, None, None, ())

    def test_a_kernel_that_counts_less_than_was_used_does_not_count(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "getpid", lambda: 10)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
        now = [0.0]
        proc = make_proc(tmp_path / "proc", 0, 0, {10: (1, 0, 0)})
        watch = Watch(2, proc, tmp_path, lambda: now[0], tmp_path, list)
        make_proc(proc, 0, 0, {10: (1, 6 * HERTZ, 0)})
        now[0] += 20
        assert watch.company(0).others_s is None

    def test_clocks_are_those_of_the_cores(self, tmp_path: Path) -> None:
        (tmp_path / "cpuinfo").write_text(
            "".join(f"processor\t: {core}\ncpu MHz\t\t: {1000 + core}.5\n\n" for core in range(4))
        )
        assert read_clock({1, 3}, tmp_path, tmp_path) == [1002.5e6]
        for core in (1, 3):
            (tmp_path / f"cpu{core}" / "cpufreq").mkdir(parents=True)
            (tmp_path / f"cpu{core}" / "cpufreq" / "scaling_cur_freq").write_text(f"{2_000_000 + core}\n")
        assert read_clock({1, 3}, tmp_path, tmp_path) == [2_000_002e3]

    @pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
    @pytest.mark.parametrize("is_own", [True, False])
    def test_a_real_process_is_own_or_anothers(self, *, is_own: bool) -> None:
        """One whose parent has gone is nobody's; it writes when it has used its time."""
        burn = "import time; e = time.process_time() + 0.3\nwhile time.process_time() < e: pass\nprint(1)"
        leave = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}])"
        watch = Watch(os.cpu_count() or 1)
        subprocess.run([sys.executable, "-c", burn if is_own else leave], check=True, capture_output=True)
        seen = watch.company(0)
        if seen.own_s is None or seen.others_s is None:
            pytest.skip("the kernel does not tell")
        assert (seen.own_s >= 0.28) == is_own
        assert is_own or seen.others_s >= 0.2


class TestWhatIsSaid:
    def with_company(self, *companies: Company) -> BenchRecord:
        return replace(make_record(), companies=companies, batching_trials=(), grids=(), soaks=())

    def test_one_plain_sentence_on_console_markdown_and_page(self) -> None:
        summary = summarise(self.with_company(company(0, 0.2), company(1, 0.8, 1.0)))
        spread = "0.02 to 0.18 by restart, 0.05 of that on other virtual machines."
        sentence = f"Others used 0.1 of 2 cores while it measured, {spread}"
        assert summary.recommendation.engine == "onnx-int8-cpu"
        for text in (notes(summary), markdown(summary), render_page(summary)):
            assert sentence in text

    def test_what_is_not_known_is_said_to_be_so(self) -> None:
        summary = summarise(self.with_company(company(0, None, None)))
        assert "How much of the 2 cores others used while it measured is not known here." in markdown(summary)
        assert summary.recommendation.engine == "onnx-int8-cpu"

    def test_a_record_that_nobody_watched_says_nothing(self) -> None:
        assert "thers used" not in markdown(summarise(self.with_company()))
        assert others_of(()) is None

    def test_clocks_that_moved_are_named(self) -> None:
        moved = others_of([company(0, 0.0, clock=2e9), company(1, 0.0, clock=3e9)])
        assert moved
        assert company_text(moved).endswith("and the clock moved between 2.0 and 3.0 GHz")
        still = others_of([company(0, 0.0, clock=2e9), company(1, 0.0, clock=2.05e9)])
        assert still
        assert company_text(still) == "Others used 0 of 2 cores while it measured"

    def test_beyond_a_share_there_is_no_verdict_and_the_numbers_are_shown(self) -> None:
        most = 10 * 2 * MOST_COMPANY
        assert summarise(self.with_company(company(0, most))).recommendation.engine == "onnx-int8-cpu"
        summary = summarise(self.with_company(company(0, most - 0.5, 1.5)))  # what was stolen counts, too
        assert summary.recommendation.engine is None
        assert summary.recommendation.sentence.startswith("No verdict: others used 0.3 of 2 cores while it measured")
        assert summary.recommendation.sentence.endswith("Measure on a quieter machine.")
        assert not summary.recommendation.is_told_apart
        assert "| onnx-int8-cpu" in markdown(summary)
        assert summary.row(REFERENCE)

    def test_no_word_on_a_speed_is_said_either(self) -> None:
        summary = summarise(replace(make_record(), companies=(company(0, 4.0),)))
        speeds = [part.speed for row in summary.rows for part in (row.latency, row.throughput) if part]
        speeds += [own.speed for row in summary.rows if row.latency for own in row.latency.by_length if own.speed]
        speeds += [cell.speed for cell in summary.grid if cell.speed]
        assert {speed.verdict for speed in speeds} == {"cannot tell"}
        assert any(verdict_of(speed, 0.02) == "faster" for speed in speeds)
        rows = [*csv.DictReader(io.StringIO(comma_separated(summary)))]
        assert {row[column] for row in rows for column in ("verdict", "bulk_verdict")} == {"cannot tell"}

    def test_a_comparison_beside_company_judges_no_speed_and_does_not_pass(self) -> None:
        record = make_record()
        slow = tuple(
            replace(s, total_s=tuple(1.3 * t for t in s.total_s)) if s.engine == "onnx-int8-cpu" else s
            for s in record.singles
        )
        now = summarise(replace(record, singles=slow, companies=(company(0, 4.0),)))
        differences = compare(make_summary(), now)
        assert not any(d.is_worse for d in differences)
        with pytest.raises(UserError, match=r"speeds were not compared .* others used 0\.4 of 2 cores") as error:
            refuse_worse(differences, Path("old.json"), now.crowd)
        assert error.value.exit_code == 2
        wrong = [replace(differences[0], is_less_accurate=True)]
        with pytest.raises(WorseError):
            refuse_worse(wrong, Path("old.json"), now.crowd)

    def test_the_share_is_that_of_all_the_time(self) -> None:
        short = replace(company(0, 2.0), wall_s=1.0)
        assert isinstance(others := others_of([short, company(1, 0.0)]), Others)
        assert others.used == pytest.approx(2 / 11)
        assert (others.least, others.most) == (0, 2)
