"""No bytes from a stranger end in anything but an answer or an error in words.

`make fuzz` calls the same targets with a fuzzer that sees which lines they reach.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing.targets import TARGETS, Target, make_fuzz_targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.run import RunDir

CORPUS = Path(__file__).parent / "fuzzing" / "corpus"
EXAMPLES = {"checkpoint": 10, "adapter": 5, "bundle": 40, "first-stage": 40, "baseline": 30}
"""Of the slower ones; 100 of each other."""


@pytest.fixture(scope="module")
def targets(exported: RunDir, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return make_fuzz_targets(exported, checkpoint, tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_end_in_an_answer_or_in_words(targets: dict[str, Target], name: str) -> None:
    target = targets[name]

    @settings(max_examples=EXAMPLES.get(name, 100), deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.binary(max_size=200))
    def check(data: bytes) -> None:
        target(data)

    check()


@pytest.mark.parametrize("path", [pytest.param(p, id=f"{p.parent.name}/{p.name}") for p in sorted(CORPUS.glob("*/*"))])
def test_what_once_failed_is_refused_in_words(targets: dict[str, Target], path: Path) -> None:
    targets[path.parent.name](path.read_bytes())


def test_a_fault_in_a_reader_would_be_seen(targets: dict[str, Target], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise KeyError(path.name)

    monkeypatch.setattr("fuzzing.targets.read_texts", fail)
    with pytest.raises(KeyError):
        targets["csv"](b"text,label\na,b\n")
