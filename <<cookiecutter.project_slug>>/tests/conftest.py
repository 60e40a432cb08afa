"""A small project in a temporary folder: this one's settings on a sample of its data.

The sample comes from the files of `data.source`, or from the example; without either, the tests
that need data are skipped. MLflow's store is in that folder too.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from << cookiecutter.package_name >> import data
from << cookiecutter.package_name >>.experiment import (
    dataset,
    labelled_rows,
    tables,
)
from << cookiecutter.package_name >>.experiment.cli import main
from << cookiecutter.package_name >>.experiment.errors import UserError
from << cookiecutter.package_name >>.experiment.params import (
    ROOT,
    Data,
    Params,
    load,
)

BATCHES, ROWS = 3, 2000  # the newest batches, and how many rows of each
FAST = {"max_iter": 30}  # of model.arguments, where they are used

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}  # notebooks too
for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
    os.environ.pop(variable, None)  # a test never writes into a store that is in use


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The threads of fits this small only wait for each other: minutes, if a core is busy."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of the small project, for every module of the package that asks for ROOT.

    Its data/raw holds one batch more than `data.through` allows, if there is one.
    """
    root = tmp_path_factory.mktemp("project")
    settings = load()
    files = _source_files(settings.data, tmp_path_factory)
    (root / "data/raw").mkdir(parents=True)
    used = dataset.batches(settings.data.model_copy(update={"source": files}))
    everything = dataset.batches(
        settings.data.model_copy(update={"source": files, "through": None})
    )
    for path in [*used[-BATCHES:], *everything[len(used) :][:1]]:
        _sample(path, root / "data/raw" / path.name, settings)
    small = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    small["data"]["source"] = "data/raw/*"
    arguments = small.get("model", {}).get("arguments") or {}
    arguments.update({key: value for key, value in FAST.items() if key in arguments})
    (root / "params.yaml").write_text(yaml.safe_dump(small), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith(f"{data.__package__}.") and hasattr(module, "ROOT"):
                patch.setattr(module, "ROOT", root)
        yield root


def _source_files(settings: Data, folders: pytest.TempPathFactory) -> str:
    try:
        dataset.batches(settings)
        return settings.source
    except UserError as missing:
        reason = f"no data to test with: {missing}"
    example = pytest.importorskip(f"{data.__package__}.example", reason=reason)
    if settings.source != example.SOURCE:
        pytest.skip(reason)
    folder = folders.mktemp("example")
    try:
        example.write(folder)
    except UserError as error:
        pytest.skip(f"no data to test with: {error}")
    return (folder / "*.parquet").as_posix()


def _sample(path: Path, target: Path, settings: Params) -> None:
    """Some rows of the batch in their order, every class among them, in the format of the file."""
    frame = next(tables.chunks(path, settings.data, rows=100 * ROWS))
    chosen = frame.sample(min(ROWS, len(frame)), random_state=0).index
    if settings.task == "classification" and settings.data.target in frame:
        chosen = chosen.union(frame.groupby(settings.data.target).head(20).index)
    frame = frame.loc[chosen.sort_values()]
    tables.write(frame, target, settings.data)


@pytest.fixture(scope="session")
def params(project: Path) -> Params:
    return load(project / "params.yaml")


@pytest.fixture(scope="session")
def frame(params: Params) -> pd.DataFrame:
    """The sampled rows that have a target, as the steps read them."""
    return labelled_rows.load(params)


@pytest.fixture(scope="session")
def rows(frame: pd.DataFrame, params: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and test rows."""
    return data.split(frame, params)


@pytest.fixture(scope="session")
def X(rows: tuple[pd.DataFrame, pd.DataFrame], params: Params) -> pd.DataFrame:  # noqa: N802
    """The features of at most 200 test rows."""
    return data.xy(rows[1].head(200), params, any_classes=True)[0]


@pytest.fixture(scope="session")
def model(rows: tuple[pd.DataFrame, pd.DataFrame], params: Params) -> Pipeline:
    # It imports MLflow, which reads the variables above.
    from << cookiecutter.package_name >>.experiment import train

    return train.fit(rows[0], params)


@pytest.fixture(scope="session")
def scored(project: Path, params: Params) -> Path:
    """The newest batch: the one after `data.through`, if there is one."""
    return dataset.batches(params.data.model_copy(update={"through": None}))[-1]


@pytest.fixture(scope="session")
def trained(project: Path, scored: Path) -> Path:
    """The small project after train, evaluate, register and predict."""
    output = project / "predictions/out.parquet"
    for step in (
        ["train"],
        ["evaluate"],
        ["register", "--run", "last"],
        ["predict", "--input", str(scored), "--output", str(output)],
    ):
        assert main(step) == 0, step
    return project
