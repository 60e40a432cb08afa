"""Drift: its measures against SciPy, its verdicts on rows of which the truth is known, and the step."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from << cookiecutter.package_name >>.continuous_training.drift import drift
from << cookiecutter.package_name >>.continuous_training.drift.distributions import (
    bins,
    chi2,
    compare,
    count,
    ks,
    psi,
    psi_bound,
)
from << cookiecutter.package_name >>.continuous_training.settings import Drift
from << cookiecutter.package_name >>.experiment import dataset, floors, tables
from << cookiecutter.package_name >>.experiment.cli import main
from << cookiecutter.package_name >>.experiment.column_types import kinds
from << cookiecutter.package_name >>.experiment.params import load

LIMITS, NOTHING = Drift(), Drift(psi=1e-9, ks=1e-9)
WORDS = [f"w{number}" for number in range(60)]
RARER = 1 / np.arange(1, 61) / np.sum(1 / np.arange(1, 61))


def table(rows: int, seed: int = 0, shift: float = 0.0) -> pd.DataFrame:
    """Numbers and words of all sorts; `shift` moves them all, in standard deviations of the first."""
    random = np.random.default_rng(seed)
    normal, other = random.normal(loc=shift, size=rows), random.normal(loc=shift, size=rows)
    frame = pd.DataFrame(
        {
            "normal": normal,
            "skewed": np.exp(3 * other),
            "tied": np.maximum(normal, 0).round(1),
            "yes": normal > 1,
            "gaps": np.where(other > 1, np.nan, normal),
            "words": np.array(WORDS)[np.searchsorted(RARER.cumsum()[:-1], stats.norm.cdf(normal))],
        }
    )
    return frame.astype({"words": "str"})


def counted(reference: pd.DataFrame, batch: pd.DataFrame) -> dict[str, tuple]:
    """The counts of both, and the kind of the column."""
    cuts = bins(reference, kinds(reference))
    known, newest = count(reference, cuts), count(batch, cuts)
    return {column: (known[column], newest[column], its.kind) for column, its in cuts.items()}


def verdicts(reference: pd.DataFrame, batch: pd.DataFrame) -> dict[str, dict]:
    return {c: compare(*its, LIMITS) for c, its in counted(reference, batch).items()}


def test_every_row_is_counted_once_where_it_belongs():
    frame = pd.DataFrame({"n": [1.0] * 97 + [5.0, 7.0, None], "w": ["a"] * 98 + ["b", None]})
    cuts = bins(frame, kinds(frame))
    found = count(pd.DataFrame({"n": [0.0, 1, 1, 2, 9, None], "w": [*"aabzz", None]}), cuts)
    assert found["n"].tolist() == [1, 2, 2, 1]  # below 1, 1, above, missing
    assert found["w"].tolist() == [2, 1, 2, 1]  # a, b, others, missing
    frame = table(5000)
    for counts in count(frame, bins(frame, kinds(frame))).values():
        assert counts.sum() == len(frame)
        assert len(counts) <= 35


def test_psi_is_its_formula():
    p, q = RARER, RARER[::-1]
    expected = sum((a - b) * np.log(a / b) for a, b in zip(p, q, strict=True))
    assert psi(p * 1e7, q * 2e7) == pytest.approx(expected, rel=1e-4)
    assert psi(q * 1e7, p * 2e7) == pytest.approx(expected, rel=1e-4)
    assert psi(np.array([90, 10, 0]), np.array([900, 100, 0])) == pytest.approx(0)
    assert 0 < psi(np.array([100, 0]), np.array([99, 1])) < 0.06 < psi(*np.array([[9, 0], [0, 9]]))


@pytest.mark.parametrize("rows", [(200, 200), (500_000, 200), (5000, 5000), (500_000, 500_000)])
@pytest.mark.parametrize("limit", [0.01, 0.2])
def test_the_bound_of_psi_is_the_quantile_of_its_distribution(rows, limit):
    counts = [np.full(32, n / 32) for n in rows]
    scale = sum(1 / n for n in rows)
    expected = scale * stats.ncx2.ppf(0.999, 31, limit / scale)
    assert psi_bound(*counts, limit) == pytest.approx(expected)


def test_ks_and_chi2_are_those_of_scipy():
    frames = table(5000), table(3000, seed=1, shift=0.2)
    for column, (one, other, kind) in counted(*frames).items():
        both = np.array([one, other])[:, one + other > 0]
        expected = stats.chi2_contingency(both, correction=False).statistic
        assert chi2(one, other) == pytest.approx(expected), column
        if kind == "number":
            exact = stats.ks_2samp(*(f[column].dropna().astype(float) for f in frames)).statistic
            within = 0 if column == "yes" else 1 / 30  # of two values each has its bin
            assert exact - within - 1e-12 < ks(one, other) < exact + 1e-12, column


@pytest.mark.parametrize(
    ("known", "rows", "seeds"),
    [(200, 200, 60), (50_000, 200, 20), (5000, 5000, 40), (200_000, 200_000, 3)],
)
def test_equal_populations_do_not_drift(known, rows, seeds):
    """In no number of rows; and beyond a limit of nothing only by chance."""
    by_chance = []
    for seed in range(seeds):
        for its in counted(table(known, seed), table(rows, 1000 + seed)).values():
            assert not compare(*its, LIMITS)["drifted"]
            by_chance.append(compare(*its, NOTHING)["drifted"])
    assert sum(by_chance) <= 0.01 * len(by_chance) + 1


def test_a_column_with_few_values_has_few_rows():
    mostly_missing = np.array([10, 10, 980]), np.array([4, 16, 980])
    assert not compare(*mostly_missing, "number", LIMITS)["drifted"]
    assert compare(*(100 * side for side in mostly_missing), "number", LIMITS)["drifted"]


def test_a_real_shift_drifts():
    for rows in (5000, 200_000):
        found = verdicts(table(50_000), table(rows, seed=1, shift=0.8))
        assert all(its["drifted"] for its in found.values()), found
        assert found["words"]["ks"] is None


def test_a_negligible_shift_of_many_rows_does_not():
    """Although it is beyond doubt: chi-squared is far above its quantile."""
    found = verdicts(table(1_000_000), table(1_000_000, seed=1, shift=0.02))
    assert found["normal"]["chi2"] > stats.chi2.ppf(1 - 1e-6, 31)
    assert not any(its["drifted"] for its in found.values())


def test_what_was_never_there_before_drifts():
    reference, batch = table(50_000), table(5000, seed=1)
    tenth = np.arange(5000) % 10 == 0
    full = batch.drop(columns="gaps")
    missing = verdicts(reference[[*full]], full.apply(lambda column: column.mask(tenth)))
    assert all(its["drifted"] for its in missing.values()), missing
    assert missing["normal"]["ks"] < 0.05
    new = batch.assign(words=batch["words"].mask(tenth, "unheard"))
    assert verdicts(reference[["words"]].replace(WORDS[20:], "w0"), new)["words"]["drifted"]


def test_columns_of_one_value_and_of_none():
    reference = pd.DataFrame({"same": [5.0] * 1000, "none": [np.nan] * 1000, "word": ["a"] * 1000})
    for its in verdicts(reference, reference.head(300)).values():
        assert (its["psi"], its["chi2"]) == pytest.approx((0, 0))
        assert not its["drifted"]
    for values in ({"same": 5.1}, {"same": 4.9}, {"same": np.nan}, {"none": 1.0}, {"word": "b"}):
        found = verdicts(reference, reference.assign(**values))
        assert [name for name, its in found.items() if its["drifted"]] == list(values)
        assert found["none"]["ks"] is None
    json.dumps(found, allow_nan=False)


def counted_batches(batches: dict[str, pd.DataFrame]) -> drift.BatchCounts:
    """The champion knows the first batch only."""
    first = next(iter(batches))
    cuts = bins(batches[first], kinds(batches[first]))
    counts = {name: count(frame, cuts) for name, frame in batches.items()}
    rows = len(batches[first])
    return drift.BatchCounts(1, [first], first, rows, cuts, counts, counts[first], {"n": 0.5})


def test_the_page_escapes_what_comes_from_the_data():
    bad = "<script>alert('x')</script>\"&"
    frame = pd.DataFrame({bad: [bad, "b"] * 50, "n": np.arange(100.0), "none": [None] * 100})
    seen = counted_batches({f"1{bad}": frame, f"2{bad}": frame.assign(n=7.0, none=1.0)})
    text = drift.page(seen, drift.report(seen, LIMITS), LIMITS)
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)" in text
    assert text.count("▲ drifted") == 2
    assert "http" not in text
    assert "They carry 100 %" in text


def test_what_a_batch_is_compared_with():
    """The same days of a year before, else what the champion was fitted on, but not the batch itself."""
    times = pd.date_range("2013-01-01", "2014-03-31", freq="D").to_series(name="time")
    rows, batch = times.reset_index(drop=True).to_frame(), times.dt.strftime("%Y-%m").to_numpy()
    for until, time, name, first, last in [
        ("2014-02", "time", "a year before, 2013-03-01 to 2013-03-31", "2013-03", "2013-03"),
        (
            "2014-02",
            None,
            "what the champion was fitted on, 2013-01 to 2014-02",
            "2013-01",
            "2014-02",
        ),
        ("2014-03", None, "the batch before, 2014-02", "2014-02", "2014-02"),
    ]:
        chosen, said = drift.reference_rows(rows, batch, until, time)
        assert said == name
        assert (batch[chosen][0], batch[chosen][-1]) == (first, last)
    chosen, said = drift.reference_rows(rows[:59], batch[:59], "2013-01", "time")
    assert said == "what the champion was fitted on, 2013-01 to 2013-01"
    assert chosen.sum() == 31


def test_the_step_needs_a_champion(pipeline: Path, capfd):
    assert main(["drift"]) == 1
    assert "is champion yet" in capfd.readouterr().err


def test_the_step(pipeline: Path, caplog):
    """A batch arrives without targets, in which a feature has one value that it had never had."""
    for step in (["train"], ["evaluate"], ["register", "--run", "last"]):
        assert main(step) == 0
    params = load(pipeline / "params.yaml")
    settings = params.data
    paths = dataset.batches(settings)
    frame = tables.read(paths, settings)
    apart = {settings.target, settings.id, settings.time, *settings.drop}
    kind = {c: k for c, k in kinds(frame).items() if c not in apart and k in ("number", "text")}
    column = next(iter(kind))
    value = frame[column].max() + 1 if kind[column] == "number" else "unheard"
    batch = next(tables.chunks(paths[-1], settings)).assign(
        **{column: value, settings.target: None}
    )
    path = paths[-1].with_stem(f"{paths[-1].stem}-later")
    tables.write(batch, path, settings)
    with caplog.at_level("INFO"):
        assert main(["drift"]) == 0
    assert column in caplog.messages[-1]
    found = json.loads((pipeline / "reports/drift.json").read_text(encoding="utf-8"))
    assert (found["schema"], found["champion"], found["batch"]) == (2, 1, path.stem)
    names = [one.stem for one in paths]
    assert found["fitted"] == names
    assert found["reference"]["rows"] == len(frame)
    assert names[-1] in found["reference"]["name"]
    worth = {name: measures["importance"] for name, measures in found["features"].items()}
    assert max(worth.values()) > 0
    assert found["features"][column]["drifted"]
    assert set(found["over_time"]) - set(found["features"]) == {settings.target}
    assert list(found["over_time"][column]) == [*names, path.stem]
    assert list(found["over_time"][settings.target]) == names
    assert settings.time not in found["features"]
    store = floors.feature_store(settings)
    assert set(store.columns if store else ()) <= set(found["features"])
    page = (pipeline / "reports/drift.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2 * len(found["features"])
    assert "▲ drifted" in page
