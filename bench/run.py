"""The benchmark: restart after restart, each left on disk with all before it."""

from __future__ import annotations

from contextlib import closing
from functools import partial

from bench.config import BenchConfig
from bench.engines.table import EngineSpec, choose_specs, why_unusable
from bench.measure.cores import pin
from bench.measure.machine import measure_machine
from bench.measure.progress import Progress
from bench.measure.restart import EngineFailedError, Restart
from bench.measure.samples import Samples
from bench.measure.workload import Setting, reference_of
from bench.record import make_record
from bench.report.write import write_reports
from bench.results import BenchRecord, Machine, Skipped
from exporter.proof.worker import Worker
from exporter.records import ONNX_FP32, open_artifact
from trainer.errors import UserError


def bench(config: BenchConfig) -> BenchRecord:
    """Measure the export in `config.run_dir` and leave the record and its reports there.

    All engines take turns, so that they finish together: what is measured is on disk after every restart, and that
    much is kept whatever ends the benchmark early. When an engine fails its restart is measured again: without it,
    which is told with its reason, if it failed in the first restart or for the second time.

    Raises:
        UserError: there is no export, no engine can be used, or the reference failed after others were compared with
            it.
    """
    setting, taken = Setting.set_up(config), Samples()
    specs = _usable(setting, taken)
    restart, failed_once = 0, set[str]()
    with Progress() as progress:
        taken.machine = _machine(setting, progress)
        while restart < config.restarts:
            try:
                Restart(setting, taken, specs, restart, progress).measure()
            except EngineFailedError as failed:
                taken.forget_restart(restart)
                if restart and failed.name not in failed_once:
                    failed_once.add(failed.name)
                    progress.step(f"{failed.message}: once more")
                    continue
                _drop(taken, specs, failed, restart)
                continue
            except BaseException:
                if taken.singles or taken.bulks:
                    write_reports(setting.run, make_record(setting, taken, specs, is_complete=False))
                raise
            restart += 1
            record = make_record(setting, taken, specs, is_complete=restart == config.restarts)
            write_reports(setting.run, record)
            progress.done(restart / config.restarts)
    return record


def _usable(setting: Setting, taken: Samples) -> list[EngineSpec]:
    """Return the engines to try, and note why not the others."""
    config, found = setting.config, []
    for spec in choose_specs(config.engines, peers=config.peers):
        reason = why_unusable(spec, setting.run, setting.export, setting.environment.gpu)
        if reason is None:
            found.append(spec)
        elif spec.device == "cpu" or setting.environment.gpu or config.engines:
            taken.skipped.append(Skipped(spec.name, reason))
    if setting.environment.gpu is None and not config.engines:
        taken.skipped.append(Skipped("all engines on CUDA", "no CUDA device"))
    if not found:
        raise _none_usable(taken.skipped)
    if config.device == "cuda" and setting.environment.gpu is None:
        raise UserError(
            "`--device cuda`, and there is no CUDA device", "measure where it will run, or leave out `--device`"
        )
    return found


def _drop(taken: Samples, specs: list[EngineSpec], failed: EngineFailedError, restart: int) -> None:
    """Go on without an engine; without the reference only as long as nothing was compared with it.

    Raises:
        EngineFailedError: it is the reference of what was measured before.
        UserError: it was the only one.
    """
    if restart and failed.name == reference_of(specs).name:
        raise failed
    taken.skipped.append(Skipped(failed.name, failed.message))
    specs[:] = [spec for spec in specs if spec.name != failed.name]
    if not specs:
        raise _none_usable(taken.skipped)
    taken.forget_engine(failed.name)


def _none_usable(skipped: list[Skipped]) -> UserError:
    return UserError("not one engine can be used here", "; ".join(f"`{s.engine}`: {s.reason}" for s in skipped))


def _machine(setting: Setting, progress: Progress) -> Machine | None:
    if ONNX_FP32 not in {artifact.name for artifact in setting.export.artifacts}:
        return None
    folder = setting.run.export / ONNX_FP32
    model = folder / open_artifact(folder).model_file
    progress.step("measuring what this machine can do at most")
    with closing(
        Worker("the machine", partial(pin, setting.environment.threads), setting.environment.threads)
    ) as worker:
        return worker.call(measure_machine, model, setting.environment.threads)
