"""Run by a generated project's Python, in its folder: fixtures around its own package."""

import importlib
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path.cwd()
PACKAGE = next(p.parent.name for p in ROOT.glob("src/*/__main__.py"))
sys.modules["project"] = importlib.import_module(PACKAGE)

SETTINGS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
SETTINGS["model"]["arguments"]["max_iter"] = 30


def module(name: str):
    """A module of the package."""
    return importlib.import_module(f"{PACKAGE}.{name}")


@pytest.fixture(scope="session")
def flights() -> Path:
    """Small batches in data/raw: 1,500 flights a month."""
    folder = ROOT / "data/raw"
    folder.mkdir(parents=True, exist_ok=True)
    table = module("example").flights()
    for month, batch in table.groupby(table["scheduled_departure"].dt.strftime("%Y-%m")):
        sample = batch.sample(1500, random_state=0).sort_index()
        sample.to_parquet(folder / f"{month}.parquet", index=False)
    return folder


@pytest.fixture
def settings():
    """Write params.yaml: the project's own settings with some replaced, as `{"data.through": …}`."""

    def write(changes: dict | None = None, base: dict | None = None) -> None:
        document = yaml.safe_load(yaml.safe_dump(SETTINGS if base is None else base))
        for path, value in (changes or {}).items():
            *sections, key = path.split(".")
            place = document
            for section in sections:
                place = place[section]
            place[key] = value
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        (ROOT / "params.yaml").write_text(text, encoding="utf-8")

    write()
    yield write
    write()


@pytest.fixture
def step(capfd):
    """Run a step as the command line does; returns exit code, stdout and stderr."""

    def call(*arguments: str):
        capfd.readouterr()
        try:
            code = module("experiment.cli").main(list(arguments))
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return code, out, err

    return call
