"""The suite runs in parts: every test is in one, and none that fails is lost in the sum."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.suite import (
    LONGEST,
    ON_DEMAND,
    Part,
    Result,
    counts,
    exit_code,
    parts,
    parts_of_oldest_neutron,
    run,
)

ROOT = Path(__file__).parents[3]


def test_every_file_of_tests_is_in_one_part_or_run_on_demand() -> None:
    found = [
        file
        for part in parts(ROOT / "tests")
        for path in map(Path, part.paths)
        for file in (sorted(path.rglob("test_*.py")) if path.is_dir() else [path])
    ]
    on_demand = [file for folder in ON_DEMAND for file in (ROOT / folder).glob("test_*.py")]
    assert on_demand
    assert sorted([*found, *on_demand]) == sorted((ROOT / "tests").rglob("test_*.py"))


def test_the_longest_parts_are_the_first() -> None:
    names = [part.name for part in parts(ROOT / "tests")]
    assert names[: len(LONGEST)] == [str(ROOT / name) for name in LONGEST]


def test_the_parts_of_an_older_neutron_are_there_and_run_with_its_python() -> None:
    found = parts_of_oldest_neutron("/other/python")
    assert {part.python for part in found} == {"/other/python"}
    assert all((ROOT / path).exists() for part in found for path in part.paths)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("===== 3 passed in 0.5s =====", {"passed": 3}),
        (".... [100%]\n3 passed, 1 deselected in 62.10s (0:01:02)\n", {"passed": 3}),
        ("= 2 failed, 7 passed, 4 warnings in 2544.28s (0:42:24) =", {"failed": 2, "passed": 7}),
        ("== 1 passed, 2 skipped, 3 errors in 1.0s ==", {"passed": 1, "skipped": 2, "failed": 3}),
        ("===== 1 passed in 1.0s =====\n===== 1 failed, 1 error in 2.0s =====", {"failed": 2}),
        ("===== no tests ran in 0.01s =====", {}),
        ("Segmentation fault", {}),
    ],
)
def test_counts_are_those_of_the_last_line(output: str, expected: dict[str, int]) -> None:
    assert counts(output) == expected


@pytest.mark.parametrize(
    ("codes", "expected"), [([0, 0], 0), ([0, 5], 0), ([5, 5], 5), ([0, 1, 5], 1), ([0, -9], -9)]
)
def test_the_suite_fails_with_any_part(codes: Sequence[int], expected: int) -> None:
    assert exit_code(codes) == expected


def test_parts_run_beside_each_other_and_all_are_reported(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    # Each ends only if the other runs.
    body = (
        "import pathlib, time\n"
        "def test_it():\n"
        "    pathlib.Path({mine!r}).touch()\n"
        "    deadline = time.monotonic() + 60\n"
        "    while not pathlib.Path({other!r}).exists():\n"
        "        assert time.monotonic() < deadline\n"
        "        time.sleep(0.01)\n"
        "    assert {passes}\n"
    )
    made = []
    for name, mine, other, passes in (("a", one, two, True), ("b", two, one, False)):
        file = tmp_path / f"test_{name}.py"
        file.write_text(body.format(mine=str(mine), other=str(other), passes=passes))
        made.append(Part(name, (str(file),)))
    outputs: dict[str, str] = {}

    def ended(result: Result, output: str) -> None:
        outputs[result.part.name] = output

    results = run(made, ["-p", "no:cacheprovider"], 2, ended)
    assert {result.part.name: dict(result.counts) for result in results} == {
        "a": {"passed": 1},
        "b": {"failed": 1},
    }
    assert {result.part.name: result.code for result in results} == {"a": 0, "b": 1}
    assert "1 failed" in outputs["b"]
