"""The benchmark: restart after restart, each left on disk with all before it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bench.config import BenchConfig
from bench.engines.table import choose_engines, reference_of
from bench.judge.summary import Summary
from bench.measure.cores import pin
from bench.measure.instruments import Instruments
from bench.measure.progress import Progress
from bench.measure.restart import EngineFailedError, Restart
from bench.measure.samples import Samples
from bench.measure.workload import Workload
from bench.pace import Pace
from bench.record import make_record
from bench.report.write import write_reports
from bench.results import Machine, Skipped
from exporter.bundle.artifact import ONNX_FP32, open_artifact
from exporter.checksums import IntegrityError
from exporter.engines.spec import EngineSpec
from trainer.errors import UserError
from trainer.run import RunDir

REAL = Instruments()


@dataclass(frozen=True)
class State:
    """Which engines are measured, why not the others, and what was measured so far."""

    engines: tuple[EngineSpec, ...]
    skipped: tuple[Skipped, ...] = ()
    samples: Samples = field(default_factory=Samples)


def bench(config: BenchConfig, instruments: Instruments = REAL) -> Summary:
    """Measure the export in `config.run_dir` and leave the record and its reports there.

    All engines take turns, so that they finish together: what is measured is on disk after every restart, and that much
    is kept whatever ends the benchmark early.

    Args:
        config: what is asked for.
        instruments: what to measure with.

    Returns:
        What was measured, as the reports show it.

    Raises:
        UserError: there is no export, no engine can be used, or the reference failed after others were compared with
            it.
    """
    run, pace = RunDir(config.run_dir), Pace(config, instruments.clock)
    with run.held():
        return _bench(Workload.read(config), instruments, pace)


def _bench(workload: Workload, instruments: Instruments, pace: Pace) -> Summary:
    state = _usable(workload, instruments)
    with Progress() as progress, _scratch(workload.run.path / "bench.partial") as scratch:
        prepared = {spec.name: scratch / spec.name for spec in state.engines}
        state = _prepare(workload, state, prepared, instruments, progress)
        machine = _measure_machine(workload, instruments, progress)
        number, failed_once, ended_by = 0, set[str](), None
        pace.begin_restarts()
        while ended_by is None:
            try:
                workload.check_unchanged()
                restart = Restart(
                    workload, state.engines, number, state.samples, prepared, instruments, progress, pace.left_s
                ).measure()
            except EngineFailedError as failed:
                progress.step(failed.message)
                if number == 0 or failed.name in failed_once:
                    state = _without(state, failed)
                failed_once.add(failed.name)
                continue
            state, number = replace(state, samples=state.samples.plus(restart)), number + 1
            record = make_record(
                workload,
                state.samples,
                state.engines,
                machine=machine,
                prepared=prepared,
                skipped=state.skipped,
            )
            if ended_by := pace.end(record, state.samples.once_s):
                record = replace(record, is_complete=True, ended_by=ended_by)
            summary = write_reports(workload.run, record)
            progress.done(pace.share)
    return summary


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a folder in the run for what engines are prepared with: what a killed benchmark left there goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _usable(workload: Workload, instruments: Instruments) -> State:
    """Find the engines to try, and why not the others."""
    config, gpu = workload.config, workload.environment.gpu
    artifacts = [artifact.name for artifact in workload.export.artifacts]
    usable, skipped = [], []
    for spec in choose_engines(config.engines, peers=config.peers, engines=instruments.engines):
        reason = spec.why_unusable(workload.run, artifacts, gpu)
        if reason is None:
            usable.append(spec)
        elif spec.device == "cpu" or gpu or config.engines:
            skipped.append(Skipped(spec.name, reason))
    if gpu is None and not config.engines:
        skipped.append(Skipped("all engines on CUDA", "no CUDA device"))
    state = _checked(State(tuple(usable), tuple(skipped)))
    if config.device == "cuda" and gpu is None:
        raise UserError(
            "`--device cuda`, and there is no CUDA device", "measure where it will run, or leave out `--device`"
        )
    return state


def _prepare(
    workload: Workload, state: State, prepared: Mapping[str, Path], instruments: Instruments, progress: Progress
) -> State:
    """Make once what some engines load, each in a process of its own; one that cannot is skipped with its reason."""
    for spec in state.engines:
        if spec.prepare is None:
            continue
        progress.step(f"preparing {spec.name}")
        prepared[spec.name].mkdir(parents=True)
        make = partial(spec.prepare, workload.run, prepared[spec.name])
        try:
            instruments.start(spec.name, make, workload.environment.threads).close()
        except IntegrityError:  # a changed file: nothing here is what the exporter proved
            raise
        except UserError as error:
            state = _without(state, EngineFailedError(spec.name, error))
    return state


def _without(state: State, failed: EngineFailedError) -> State:
    """Go on without an engine that failed in the first restart or for the second time.

    Raises:
        UserError: it was the only one, or the reference of what was measured before.
    """
    if state.samples.bulks and failed.name == reference_of(state.engines).name:
        raise failed
    others = tuple(spec for spec in state.engines if spec.name != failed.name)
    skipped = (*state.skipped, Skipped(failed.name, failed.message))
    return _checked(State(others, skipped, state.samples.without(failed.name)))


def _checked(state: State) -> State:
    if not state.engines:
        reasons = "; ".join(f"`{s.engine}`: {s.reason}" for s in state.skipped)
        raise UserError("no engine can be used here", reasons)
    return state


def _measure_machine(workload: Workload, instruments: Instruments, progress: Progress) -> Machine | None:
    if ONNX_FP32 not in {artifact.name for artifact in workload.export.artifacts}:
        return None
    folder, threads = workload.run.export / ONNX_FP32, workload.environment.threads
    model = folder / open_artifact(folder).model_file
    progress.step("measuring the limits of this machine")
    with closing(instruments.start("the machine", _nothing, threads, partial(pin, threads))) as worker:
        return worker.call(instruments.measure_machine, model, threads)


def _nothing() -> None:
    """Load nothing: a process that only computes."""
