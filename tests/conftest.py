"""What the tests share: a tiny checkpoint, tiny labelled data, and one trained and exported run of them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test asks the network
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # toys gain nothing by a second thread, and wait for it where cores are shared

import pytest
from local_worker import LocalWorker
from toys import make_checkpoint, make_texts, write_csv

from trainer.config import TrainConfig
from trainer.errors import run_command
from trainer.run import RunDir


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    """Refuse a test that leaves torch with other threads: later ones compare sums to the bit, which depend on them."""
    before = _torch_threads()
    yield
    assert before in (None, _torch_threads())


def _torch_threads() -> int | None:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DistilBERT of two layers, 32 wide, with random weights and a tokenizer that knows `WORDS`."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def topics_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 texts with four string labels."""
    return write_csv(tmp_path_factory.mktemp("data") / "topics.csv", list(make_texts(160)))


@pytest.fixture(scope="session")
def toy_config(checkpoint: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A configuration that learns the topics in seconds."""
    return TrainConfig(
        model=str(checkpoint),
        dataset=str(topics_csv),
        epochs=16,
        batch_size=8,
        learning_rate=1e-2,
        max_length=24,
        precision="fp32",
        device="cpu",
        run_dir=tmp_path_factory.mktemp("runs") / "toy",
    )


@pytest.fixture(scope="session")
def trained(toy_config: TrainConfig) -> RunDir:
    """A trained run. Tests that change it take a copy."""
    from trainer.training.train import train

    train(toy_config)
    return RunDir(toy_config.run_dir)


@pytest.fixture(scope="session")
def exported(trained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A trained run with its export, int8 included. Tests that change it take a copy."""
    from exporter.config import ExportConfig
    from exporter.export import export

    run = RunDir(tmp_path_factory.mktemp("runs") / "exported")
    shutil.copytree(trained.path, run.path)
    export(ExportConfig(run_dir=run.path, quantize="dynamic", accept_undecided=True, verify_samples=16), LocalWorker)
    return run


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[RunDir], RunDir]:
    """Copies a run into the test's own folder."""

    def copy(run: RunDir) -> RunDir:
        return RunDir(Path(shutil.copytree(run.path, tmp_path / "run")))

    return copy


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command's `main` in this process and returns its exit status, stdout and stderr."""

    def run(main: Callable[[], None], *flags: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, flags)])
        capsys.readouterr()
        status = run_command(main, if_interrupted="again")
        out, err = capsys.readouterr()
        return status, out, err

    return run
