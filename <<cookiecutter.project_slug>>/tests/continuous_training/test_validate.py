"""The schema: inferred once, readable, and each of its rules finds what breaks it."""

import pandas as pd
import pytest

from << cookiecutter.package_name >>.continuous_training.stages import validate
from << cookiecutter.package_name >>.experiment.errors import UserError

FRAME = pd.DataFrame(
    {
        "when": pd.to_datetime(["2025-01-01", "2025-01-02", "2025-01-03"]),
        "size": [1.0, 2.0, 3.0],
        "place": pd.Series(["a", "b", "a"], dtype="str"),
        "often": [1.0, None, 3.0],
        "unused": [1.0, 2.0, 3.0],
        "target": [True, False, None],
    }
)


@pytest.fixture
def columns(params):
    settings = params.data.model_copy(
        update={"target": "target", "drop": ["unused"], "time": "when"}
    )
    return validate.infer(FRAME, settings)


@pytest.fixture
def rows():
    return FRAME.drop(columns="unused").copy()


def test_inferred(columns, rows, tmp_path):
    validate.write(columns, ["2025-01", "2025-02"], tmp_path / "schema.yaml")
    text = (tmp_path / "schema.yaml").read_text(encoding="utf-8")
    assert "  when: {kind: date, missing: 0}\n" in text
    assert "  size: {kind: number, missing: 0.5}\n" in text
    assert "  often: {kind: number, missing: 1}\n" in text
    assert validate.read(tmp_path / "schema.yaml") == columns
    assert validate.check(rows, columns) == []


BROKEN = {
    "column 'size' is missing": lambda f: f.drop(columns="size"),
    "column 'new' is not in schema.yaml": lambda f: f.assign(new=1.0),
    "column 'size' breaks the rule missing: 0.5: 67% of": lambda f: f.assign(
        size=[1.0, None, None]
    ),
    "column 'when' breaks the rule missing: 0: 33% of": lambda f: f.assign(
        when=f["when"].where(f["size"] > 1)
    ),
    "column 'size' breaks the rule kind: number: holds texts": lambda f: f.assign(
        size=pd.Series(["x", "y", "z"], dtype="str")
    ),
    "column 'when' breaks the rule kind: date: holds numbers": lambda f: f.assign(when=1.0),
}


@pytest.mark.parametrize("said", BROKEN)
def test_broken(said, columns, rows):
    (found,) = validate.check(BROKEN[said](rows), columns)
    assert said in found


def test_rules_of_ones_own(columns, rows):
    columns["size"] |= {"min": 0, "max": 2.5}
    columns["place"] |= {"values": ["a"]}
    found = validate.check(rows, columns)
    assert len(found) == 2
    assert any("'size'" in one and "2.5" in one and "3.0" in one for one in found)
    assert any("'place'" in one and "'b'" in one for one in found)


DAYS = pd.date_range("2013-03-01", periods=500, freq="2h").to_series(name="when", index=range(500))
ODD_TIMES = {
    "to come": ("2199-01-01", "1 rows are to come, up to 2199-01-01"),
    "another year": ("2014-03-05", "1 rows from 2014-03-05 lie 328 days from all others"),
    "epoch": ("1970-01-01", "1 rows from 1970-01-01 lie 15,765 days from all others"),
}


@pytest.mark.parametrize("case", ODD_TIMES)
def test_times_that_cannot_be(case):
    odd, message = ODD_TIMES[case]
    assert validate.check_times(DAYS) == []
    (found,) = validate.check_times(DAYS.mask(DAYS.index == 7, pd.Timestamp(odd)))
    assert message in found


@pytest.mark.parametrize("times", [["2013-01-01"], ["2013-01-01", "2014-01-01"], []])
def test_times_that_may_be(times):
    """One day, two waves of a survey, none at all."""
    assert validate.check_times(pd.Series(pd.to_datetime(times), name="when")) == []


def test_an_empty_column_is_of_every_kind(columns, rows):
    columns["place"]["missing"] = 1
    rows["place"] = pd.Series([None] * 3, dtype="float64")
    assert validate.check(rows, columns) == []


def test_a_schema_that_is_none_is_told(tmp_path):
    path = tmp_path / "schema.yaml"
    forged = ["[" * 5000, "columns: !!python/name:os.system", "columns: {a: {missing: x}}"]
    for text in ("columns: [", "columns: {a: {kind: number, least: 1}}", "a: b", *forged):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"schema\.yaml"):
            validate.read(path)
