"""What results say is what was measured, and lines are those through the points."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import charts
from benchmarks.lakes import ROOT
from benchmarks.lines import Line, fit
from benchmarks.measuring import Cost, Measured
from benchmarks.parts.speed import (
    DUCKDB,
    FIVE_JOBS,
    FLOOR,
    ONE_SESSION,
    PANDAS,
    SPARK,
    goals,
    lines,
)
from benchmarks.results import Comparison, Goal, Part, Parts, fits, load, save, tell_one


def measured(name: str, rows: int, *walls: float, peak: float = 500) -> Measured:
    return Measured(name, rows, tuple(Cost(wall, wall * 2, peak) for wall in walls))


def at(size: int, **walls: float) -> Comparison:
    names = {"duckdb": DUCKDB, "spark": SPARK, "jobs": FIVE_JOBS, "one_session": ONE_SESSION}
    names |= {"pandas": PANDAS, "floor": FLOOR}
    found = [
        measured(names[key], size * 1_000_000, wall, peak=100 * wall) for key, wall in walls.items()
    ]
    return Comparison(f"x{size}", found, size=size)


def measured_parts() -> Parts:
    sizes = [at(size, duckdb=2.0 + size, jobs=20.0 + 2 * size) for size in (1, 10, 100)]
    growth = [measured("x1", 1_000_000, 2.0), measured("x10", 10_000_000, 11.0)]
    fitted = fits("stedi run", [1, 10], growth, "million landing rows", "million landing rows")
    on = {"cores": "2"}
    return {
        "speed": Part(on, sizes),
        "growth": Part(on, [Comparison("By size", growth, fits=fitted)] * 2),
    }


def test_a_table_shows_medians_and_rows_a_second() -> None:
    told = tell_one(Comparison("Title", [measured("mine", 9_000, 1.0, 3.0, 8.0)]))
    assert "| mine | 3.00 | 6.00 | 500 | 3,000 | 3 |" in told.splitlines()


@pytest.mark.parametrize(
    ("goal", "told"),
    [
        (Goal("a", 1.99, 2.0), "at most 2 times: met"),
        (Goal("a", 2.01, 2.0), "at most 2 times: **missed**"),
        (Goal("a", 5.01, 5.0, at_least=True), "at least 5 times: met"),
        (Goal("a", 4.99, 5.0, at_least=True), "at least 5 times: **missed**"),
        (Goal("a", 1.0), ""),
    ],
)
def test_a_goal_says_whether_it_is_met(goal: Goal, told: str) -> None:
    assert goal.told == told


def test_the_goals_at_x100_are_those_that_are_promised() -> None:
    walls = {"duckdb": 10.0, "spark": 78.0, "jobs": 60.0, "one_session": 40.0}
    found = goals(at(100, **walls, pandas=40.0, floor=4.0))
    assert [(goal.value, goal.told) for goal in found] == [
        (6.0, "at least 5 times: met"),
        (1.3, "at most 1.3 times: met"),
        (4.0, "at least 5 times: **missed**"),
        (1.95, "at most 1.3 times: **missed**"),
        (4.0, "at least 5 times: **missed**"),
        (0.25, "at most 0.333333 times: met"),
        (2.5, "at most 2 times: **missed**"),
        (1000.0, "at most 2048 MB: met"),
    ]


def test_without_java_nothing_is_said_of_spark() -> None:
    found = goals(at(100, duckdb=10.0, pandas=40.0, floor=4.0))
    assert not [goal for goal in found if "Spark" in goal.text]
    assert len(found) == 4


def test_a_part_replaces_itself_and_leaves_the_others(tmp_path: Path) -> None:
    first = measured_parts()
    save(first, tmp_path)
    assert load(tmp_path) == first
    again = first | {"growth": replace(first["growth"], on={"cores": "64"})}
    save(again, tmp_path)
    assert load(tmp_path)["growth"].on == {"cores": "64"}
    assert load(tmp_path)["speed"] == first["speed"]


def test_the_short_table_has_a_row_a_contestant_and_a_column_a_size(tmp_path: Path) -> None:
    save(measured_parts(), tmp_path)
    told = (tmp_path / "results.md").read_text()
    assert f"| {DUCKDB} | 3.0 s | 12.0 s | 102.0 s | 204 s | 10,200 MB | 980,392 |" in told


def test_charts_name_who_was_measured(tmp_path: Path) -> None:
    charts.draw(measured_parts(), tmp_path)
    for name, words in (("speed", [DUCKDB, FIVE_JOBS, "x100"]), ("growth", ["By size"])):
        drawn = (tmp_path / f"{name}.svg").read_text()
        assert len(drawn) < 100_000
        for word in words:  # its letters are shapes; a comment beside them says what they spell
            assert f"<!-- {word} -->" in drawn


def test_charts_of_the_same_figures_are_the_same_files(tmp_path: Path) -> None:
    drawn = []
    for _ in range(2):
        charts.draw(measured_parts(), tmp_path)
        drawn.append((tmp_path / "speed.svg").read_bytes())
    assert drawn[0] == drawn[1]


def test_a_line_through_points_of_a_line_is_that_line() -> None:
    found = fit([(x, 3 + 0.5 * x) for x in (1, 10, 100)])
    assert (found.fixed, found.each) == (pytest.approx(3), pytest.approx(0.5))
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.at(1000) == pytest.approx(503)


def test_a_line_has_the_least_squares_of_relative_errors() -> None:
    points = [(1.0, 2.0), (2.0, 5.0), (10.0, 12.0), (50.0, 70.0)]

    def squares(line: Line) -> float:
        return sum((line.at(x) / y - 1) ** 2 for x, y in points)

    found = fit(points)
    for fixed, each in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        other = replace(found, fixed=found.fixed + fixed, each=found.each + each)
        assert squares(found) < squares(other)
    assert found.error == pytest.approx(max(abs(found.at(x) / y - 1) for x, y in points))


def test_points_at_one_place_have_no_line() -> None:
    with pytest.raises(ValueError, match="two different places"):
        fit([(1, 2), (1, 3)])


def test_lines_of_contestants_are_over_millions_of_rows() -> None:
    sizes = [at(size, duckdb=2.0 + 0.1 * size) for size in (1, 10, 100)]
    found, of_cpu, of_memory = lines(sizes)
    assert (found.name, found.line.fixed, found.line.each) == (
        DUCKDB,
        pytest.approx(2.0),
        pytest.approx(0.1),
    )
    assert (of_cpu.unit, of_cpu.line.each) == ("CPU s", pytest.approx(0.2))
    assert (of_memory.unit, of_memory.line.each) == ("MB", pytest.approx(10))  # 100 a second


def test_readme_shows_the_table_that_was_measured() -> None:
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## How fast it is")[1].split("\n## ")[0]
    shown = re.findall(r"^\|.*\|$", section, re.MULTILINE)
    assert len(shown) > 2
    assert "\n".join(shown) in (ROOT / "benchmarks" / "results" / "results.md").read_text()
