"""What the docs print can be typed, and what is installed is what the project says."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import bench.__main__
import bench.goals
import bench.training.__main__
import exporter.__main__
import exporter.predict
import exporter.tune.__main__
import trainer.__main__
import trainer.adopt.__main__
import trainer.pretrain.__main__

ROOT = Path(__file__).parents[1]
FRONT = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = [*(ROOT / name for name in FRONT), *sorted(ROOT.glob("docs/*.md"))]
SAMPLE_CARD = ROOT / "trainer" / "sample" / "README.md"
PARSERS = {
    "trainer": trainer.__main__.make_parser(),
    "trainer.pretrain": trainer.pretrain.__main__.make_parser(),
    "trainer.adopt": trainer.adopt.__main__.make_parser(),
    "exporter": exporter.__main__.make_parser(),
    "exporter.predict": exporter.predict.make_parser(),
    "bench.training": bench.training.__main__.make_parser(),
    "exporter.tune": exporter.tune.__main__.make_parser(),
    "bench": bench.__main__.make_parser(),
    "bench.goals": bench.goals.make_parser(),
}
FENCE = re.compile(r"^```.*?^```", re.M | re.S)
COMMAND = re.compile(r"-m (trainer|exporter|bench)(\.\w+)?(?![\w.])([^\n`]*)")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def in_fences(page: Path) -> str:
    return "\n".join(FENCE.findall(page.read_text(encoding="utf-8"))).replace("\\\n", "")


def inline_code(page: Path) -> str:
    return "\n".join(re.findall(r"`([^`]+)`", FENCE.sub("", page.read_text(encoding="utf-8"))))


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    for package, module, arguments in COMMAND.findall(text):
        yield package + module, shlex.split(arguments, comments=True)


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def default_of(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    default = parser.get_default(action.dest)
    if default is None or default == ():
        return "–"
    if isinstance(default, bool):
        return "on" if default else "off"
    return " ".join(map(str, default if isinstance(default, tuple) else [default]))


def documented(command: str) -> dict[str, str]:
    """The flags in a command's table of the reference, with their defaults."""
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = reference.partition(f"\n### `python -m {command}`\n")[2].partition("\n##")[0]
    return dict(re.findall(r"^\| `(--[\w-]+)[^`]*` \| (\S[^|]*?) \|", section, re.M))


@pytest.mark.parametrize("page", [*PAGES, SAMPLE_CARD], ids=page_id)
def test_commands_can_be_parsed(page: Path) -> None:
    typed = re.findall(r"^(?:\S*python|torchrun) .*", in_fences(page), re.M)
    for name, arguments in commands("\n".join(typed)):
        PARSERS[name].parse_args(arguments)
    for name, arguments in commands(in_fences(page) + "\n" + inline_code(page)):
        flags = {argument for argument in arguments if argument.startswith("--")}
        assert flags <= {*PARSERS[name]._option_string_actions}, f"of {name}"


def test_there_are_commands_to_parse() -> None:
    assert {name for page in PAGES for name, _ in commands(in_fences(page))} == set(PARSERS)


@pytest.mark.parametrize("command", PARSERS)
def test_every_flag_is_in_the_reference_with_its_default(command: str) -> None:
    parser = PARSERS[command]
    actions = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    borrowed = documented("trainer.adopt") if command == "exporter" else {}
    assert borrowed | documented(command) == {a.option_strings[0]: default_of(parser, a) for a in actions}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in slugs(target), link


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 1200


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"^make ([a-z-]+)", f"{in_fences(page)}\n{inline_code(page)}", re.M)) <= targets


def requirements(path: str) -> dict[str, str]:
    """Return the exact versions that a file of constraints names."""
    lines = [line for line in (ROOT / path).read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_ci_installs_what_the_package_allows_and_the_oldest_of_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base, train, test, optimum = (
        [Requirement(line) for line in lines]
        for lines in (project["dependencies"], *map(project["optional-dependencies"].get, ("train", "test", "optimum")))
    )
    newest, oldest, oldest_train = (
        requirements(f".ci/{name}.txt") for name in ("constraints", "oldest", "oldest-train")
    )
    assert all(r.specifier.contains(newest[canonicalize_name(r.name)]) for r in base + train + test)
    assert {name: Version(version) for name, version in oldest.items()} == lower_bounds(base)
    expected = lower_bounds(base) | lower_bounds(train + optimum)
    del expected["torch"], expected["tokenizers"]  # for its size, and because transformers wants a newer one
    assert {name: Version(version) for name, version in oldest_train.items()} == expected


def lower_bounds(requirements: list[Requirement]) -> dict[str, Version]:
    return {r.name: Version(s.version) for r in requirements for s in r.specifier if s.operator == ">="}


def test_only_its_own_extra_installs_optimum_which_holds_transformers_back() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [name for name, lines in extras.items() if any(line.startswith("optimum") for line in lines)] == ["optimum"]
    assert "optimum" not in requirements(".ci/constraints.txt")
