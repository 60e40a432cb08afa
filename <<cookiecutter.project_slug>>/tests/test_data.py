"""The contract of the data: what the rows hold, what a model may see, how they are split."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from << cookiecutter.package_name >> import data
from << cookiecutter.package_name >>.experiment import dataset, tables
from << cookiecutter.package_name >>.experiment.errors import UserError
from << cookiecutter.package_name >>.experiment.params import Data, Params


def with_data(params: Params, **settings) -> Params:
    return params.model_copy(update={"data": params.data.model_copy(update=settings)})


def test_every_batch_has_the_columns_and_types_of_the_first(params):
    paths = dataset.batches(params.data.model_copy(update={"through": None}))
    whole = tables.read(paths, params.data)
    assert len(whole) == sum(len(tables.read([path], params.data)) for path in paths)
    for column in whole.columns.drop([params.data.target, *params.data.drop]):
        kind = whole[column].dtype
        assert kind in ("float64", "str", "datetime64[us]"), f"{column} is {kind}"


def test_only_batches_up_to_through_are_used(params):
    used = dataset.batches(params.data)
    assert used == sorted(used, key=lambda path: path.stem)
    first = dataset.batches(params.data.model_copy(update={"through": used[0].stem}))
    assert first == used[:1]
    with pytest.raises(UserError, match="before the first batch"):
        dataset.batches(params.data.model_copy(update={"through": " "}))


def test_no_feature_is_set_apart(frame, params):
    X, y = data.xy(frame, params)
    apart = {params.data.target, params.data.id, *params.data.drop}
    assert not apart & set(X.columns)
    assert len(X) == len(y) == len(frame)


def test_what_a_flight_did_later_is_dropped(params):
    example = pytest.importorskip(f"{data.__package__}.example", reason="the example is deleted")
    columns = tables.read(dataset.batches(params.data)[:1], params.data).columns
    if not {*example.OUTCOME} <= {*columns}:
        pytest.skip("the data are not the example's")
    assert {*example.OUTCOME} <= {params.data.target, *params.data.drop}


def test_labels(frame, params):
    _, y = data.xy(frame, params)
    assert not pd.isna(y).any()
    if params.task == "classification":
        assert len(np.unique(y.astype(str))) >= 2
    else:
        assert np.isfinite(y).all()


def test_rows_without_a_label(frame, params):
    target = params.data.target
    gap = frame.assign(**{target: frame[target].astype(object).where(frame.index != 3)})
    assert len(data.labelled(gap, with_data(params, unlabelled="drop"))) == len(frame) - 1
    with pytest.raises(UserError, match="1 rows have no"):
        data.labelled(gap, with_data(params, unlabelled="refuse"))
    label = frame[target].iloc[0]
    counted = data.labelled(gap, with_data(params, unlabelled=label))
    assert len(counted) == len(frame)
    assert counted[target][3] == label


def test_the_test_rows_are_the_newest(frame, params):
    if params.data.time is None:
        pytest.skip("params.yaml names no time column (data.time)")
    train, test = data.split(frame, params)
    assert train[params.data.time].max() < test[params.data.time].min()
    assert len(train) + len(test) == len(frame)
    assert 0 < len(test) / len(frame) <= params.split.test + 0.01


def test_without_time_the_split_is_random_but_repeatable(frame, params):
    timeless = with_data(params, time=None)
    train, test = data.split(frame, timeless)
    again, _ = data.split(frame, timeless)
    assert list(train.index) == list(again.index)
    assert not set(train.index) & set(test.index)
    assert test.index.min() < train.index.max()
    assert len(test) / len(frame) == pytest.approx(params.split.test, abs=0.1)


def test_a_csv_as_brazil_writes_it(tmp_path):
    lines = [
        "quando;preço;cidade;cep",
        "31/12/2013;1.234,5;São Paulo;01310",
        "01/02/2014;;Natal;59",
    ]
    (tmp_path / "vendas.csv").write_text("\n".join(lines), encoding="latin-1")
    settings = Data.model_validate(
        {
            "source": "vendas.csv",
            "target": "preço",
            "time": "quando",
            "text": ["cep"],
            "csv": {"sep": ";", "decimal": ",", "encoding": "latin-1", "dayfirst": True},
        }
    )
    read = tables.read([tmp_path / "vendas.csv"], settings)
    assert list(read["quando"]) == [pd.Timestamp("2013-12-31"), pd.Timestamp("2014-02-01")]
    assert read["preço"].astype(float)[0] == 1234.5
    assert list(read["cidade"]) == ["São Paulo", "Natal"]
    assert list(read["cep"]) == ["01310", "59"]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("when,size,label\n2014-02-01,big,1\n", "'size' holds texts"),
        ("when,label\n2014-02-01,1\n", "'size' is missing"),
        ("when,size,label\nsome day,1,1\n", "'when'"),
        ("when,size,label\n", "no rows"),
        ("", "empty"),
    ],
)
def test_a_bad_batch_is_refused_with_its_name(tmp_path: Path, second: str, said: str):
    (tmp_path / "a.csv").write_text("when,size,label\n2014-01-01,1,0\n2014-01-02,2,1\n")
    (tmp_path / "b.csv").write_text(second)
    settings = Data(source="*.csv", target="label", time="when")
    with pytest.raises(UserError) as refused:
        tables.read([tmp_path / "a.csv", tmp_path / "b.csv"], settings)
    assert "b.csv" in str(refused.value)
    assert said in str(refused.value)


def test_the_digest_is_that_of_the_contents(tmp_path):
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in paths:
        path.write_text("x\n1\n")
    before = dataset.digest(paths)
    assert dataset.digest(paths) == before
    paths[1].write_text("x\n2\n")
    assert dataset.digest(paths) != before
