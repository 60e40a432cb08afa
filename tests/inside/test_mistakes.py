"""Each mistake of a user: exit code 1, one sentence that names the place, nothing written."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import PACKAGE

ROOT = Path.cwd()
OWN = {"data.time": None, "data.drop": [], "data.through": None, "data.target": "y"}
OWN |= {"evaluate.segments": []}


def refused(result, *words: str) -> None:
    code, _, err = result
    assert code == 1, err
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert len(last) < 800
    for word in words:
        assert re.search(word, last), last


SETTINGS = {
    "no file": ({"data.source": "nothing.csv"}, "data.source", "nothing.csv"),
    "target absent": ({"data.target": "latte"}, "2013-01.parquet", "'latte'"),
    "time absent": ({"data.time": "sched"}, "2013-01.parquet", "'sched'"),
    "typo in drop": ({"data.drop": ["arr_dealy"]}, "'arr_dealy'"),
    "through too early": ({"data.through": "2012-01"}, "data.through", "2012-01", "2013-01"),
    "unknown key": ({"data.sorce": "x"}, "data.sorce", "did you mean source"),
    "unknown section": ({"nonsense": 1}, "nonsense", "not a setting"),
    "wrong type": ({"split.test": "lots"}, "split.test", "'lots'"),
    "out of range": ({"split.test": 0}, "split.test"),
    "text for a number": ({"seed": "abc"}, "seed"),
    "unknown metric": ({"evaluate.metric": "rocauc"}, "evaluate.metric"),
    "metric of the other task": ({"task": "regression", "evaluate.metric": "roc_auc"}, "metric"),
    "unknown argument": ({"model.arguments": {"max_itr": 3}}, "model.arguments", "max_itr"),
    "argument out of range": ({"model.arguments": {"max_iter": -3}}, "model.arguments", "max_iter"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name, flights, settings, step):
    changes, *words = SETTINGS[name]
    settings(changes)
    refused(step("train"), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: [", "not valid YAML"),
        ("- 1", "holds no settings"),
        ("", "holds no settings"),
        ("data: !!python/object/apply:os.system ['touch owned']", "not valid YAML: .*os.system"),
        ("data: !mine 1", "not valid YAML: .*!mine"),
        ("[" * 5000, "not valid YAML: maximum recursion"),
        ("{a: " * 5000, "not valid YAML: maximum recursion"),
        ("data: {through: 2013-13-01}", "not valid YAML: month must be in 1..12"),
        ("1: 2", "1: keys should be strings"),
        ("task: [classification]", "task: input should be"),
    ],
)
def test_settings_file(text, words, settings, step):
    (ROOT / "params.yaml").write_text(text)
    refused(step("train"), "params.yaml", words)
    assert not (ROOT / "owned").exists()


FILES = {
    "empty": (b"", {}, "the file is empty"),
    "header only": (b"y,x\n", {}, "no rows"),
    "one class": (b"y,x\n" + b"1,1\n" * 9 + b"1,2\n", {}, "'y'", "only one class"),
    "no label": (b"y,x\n,1\n,2\n", {}, "'y'", "empty"),
    "fractions": (b"y,x\n" + b"1.5,1\n2.5,2\n1.7,3\n" * 5, {}, "task", "'y'"),
    "bad date": (
        b"y,when\n1,2024-01-01\n0,31.31.2024\n",
        {"data.time": "when"},
        "'when'",
        "data.csv.dayfirst",
        "31.31.2024",
    ),
    "date missing": (
        b"y,when,x\n1,2024-01-01,1\n0,,2\n",
        {"data.time": "when"},
        "'when'",
        "without a date",
    ),
    "wrong encoding": ("y,x\n1,Köln\n0,a\n".encode("latin-1"), {}, "data.csv.encoding"),
    "unknown encoding": (b"y,x\n1,a\n", {"data.csv": {"encoding": "utf-9"}}, "csv.encoding"),
    "wrong separator": (b"y;x\n1;2\n0;3\n", {}, "'y'", "data.csv.sep"),
    "ragged": (b"y,x\n1,2\n0,3,4,5\n", {}, "cannot be read"),
    "nothing to learn from": (b"y,x\n" + b"1,\n0,\n" * 9, {}, "data.drop"),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name, tmp_path, settings, step):
    content, changes, *words = FILES[name]
    path = tmp_path / "own.csv"
    path.write_bytes(content)
    # A binary label for the classification, a number for the regression.
    task = {"task": "classification", "evaluate.metric": "roc_auc"}
    settings(OWN | task | {"data.source": str(path), "model.arguments": {}} | changes)
    refused(step("train"), *words)


def test_text_as_regression_target(tmp_path, settings, step):
    (tmp_path / "own.csv").write_text("y,x\n" + "a,1\nb,2\n" * 9)
    task = {"task": "regression", "evaluate.metric": "mae", "model.arguments": {}}
    settings(OWN | task | {"data.source": str(tmp_path / "own.csv")})
    refused(step("train"), "task", "'y'")


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("y,x\n1,a\n0,b\n", ["own-2", "'x'", "text"]),
        ("y,z\n1,1\n0,2\n", ["own-2", "'x'", "missing"]),
    ],
)
def test_batches_differ(second, words, tmp_path, settings, step):
    (tmp_path / "own-1.csv").write_text("y,x\n1,1\n0,2\n")
    (tmp_path / "own-2.csv").write_text(second)
    settings(OWN | {"data.source": str(tmp_path / "own-*.csv")})
    refused(step("data"), *words)


@pytest.mark.parametrize("damage", ["cut", "middle"])
def test_corrupt_parquet(damage, flights, tmp_path, settings, step):
    content = bytearray((flights / "2013-01.parquet").read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[2000:9000] = bytes(7000)
    (tmp_path / "2013-01.parquet").write_bytes(content)
    settings({"data.source": str(tmp_path / "*.parquet")})
    refused(step("train"), "2013-01.parquet", "cannot be read")


@pytest.mark.parametrize("name", ["train", "evaluate", "register", "predict", "serve", "tune"])
def test_store_away(name, flights, settings, step, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    arguments = {
        "register": ["--run", "last"],
        "predict": ["--input", str(flights / "2013-05.parquet"), "--output", str(tmp_path / "o")],
    }
    refused(step(name, *arguments.get(name, [])), "MLFLOW_TRACKING_URI", "127.0.0.1:9")


@pytest.mark.parametrize("scheme", ["http", "postgresql+nodriver"])
def test_store_away_keeps_its_password(scheme, flights, settings, step, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://someone:hidden@127.0.0.1:9/x")
    result = step("train")
    refused(result, "MLFLOW_TRACKING_URI", "127.0.0.1:9")
    assert "hidden" not in result[2]


def test_nothing_registered(flights, settings, step, tmp_path):
    settings({"register.name": "nobody"})
    file = ["--input", str(flights / "2013-05.parquet"), "--output", str(tmp_path / "o.parquet")]
    refused(step("predict", *file), "nobody", "register")
    refused(step("serve"), "nobody", "register")


def test_unknown_names(flights, settings, step):
    refused(step("evaluate", "--run", "abcdef"), "abcdef")
    refused(step("register", "--run", "abcdef"), "abcdef")
    assert step("predcit")[0] == 2


class TestPredict:
    """With a champion: bad input leaves no output, whole or partial."""

    @pytest.fixture(autouse=True)
    def champion(self, flights, settings, step, tmp_path):
        if not getattr(TestPredict, "made", False):
            for arguments in (["train"], ["evaluate"], ["register", "--run", "last"]):
                assert step(*arguments)[0] == 0
            TestPredict.made = True
        self.flights, self.step, self.folder = flights, step, tmp_path

    def predict(self, source: Path):
        output = self.folder / "out" / "o.parquet"
        result = self.step("predict", "--input", str(source), "--output", str(output))
        if result[0]:
            assert not list(self.folder.glob("out/*")), "something was left behind"
        return result

    def test_it_works(self):
        code, _, err = self.predict(self.flights / "2013-05.parquet")
        assert code == 0, err
        assert len(pd.read_parquet(self.folder / "out/o.parquet")) == 1500

    def test_no_file(self):
        refused(self.predict(self.folder / "nope.parquet"), "nope.parquet")

    def test_column_missing(self):
        table = pd.read_parquet(self.flights / "2013-05.parquet").drop(columns="carrier")
        table.to_parquet(self.folder / "x.parquet")
        refused(self.predict(self.folder / "x.parquet"), "x.parquet", "'carrier'")

    def test_column_of_the_wrong_type(self):
        table = pd.read_parquet(self.flights / "2013-05.parquet")
        table.assign(temp="48 F").to_parquet(self.folder / "x.parquet")
        refused(self.predict(self.folder / "x.parquet"), "x.parquet", "'temp'", "48 F")

    def test_no_rows(self):
        pd.read_parquet(self.flights / "2013-05.parquet").head(0).to_parquet(
            self.folder / "x.parquet"
        )
        refused(self.predict(self.folder / "x.parquet"), "no rows")

    def test_corrupt(self):
        content = (self.flights / "2013-05.parquet").read_bytes()
        (self.folder / "x.parquet").write_bytes(content[:2000] + bytes(7000) + content[9000:])
        refused(self.predict(self.folder / "x.parquet"), "x.parquet", "cannot be read")

    def test_output_is_a_folder(self):
        (self.folder / "out" / "o.parquet").mkdir(parents=True)
        result = self.step(
            "predict",
            *("--input", str(self.flights / "2013-05.parquet")),
            *("--output", str(self.folder / "out" / "o.parquet")),
        )
        refused(result, "o.parquet")
        assert os.listdir(self.folder / "out") == ["o.parquet"]

    def test_unknown_version(self):
        file = ["--input", str(self.flights / "2013-05.parquet"), "--output", "o.parquet"]
        refused(self.step("predict", "--model", "99", *file), "99")
        refused(self.step("predict", "--model", "@@", *file), "@@")

    @pytest.fixture
    def large(self) -> Path:
        """600,000 flights: several chunks."""
        table = pd.read_parquet(self.flights / "2013-05.parquet")
        path = self.folder / "large.parquet"
        table = pd.concat([table] * 400)
        table["key"] = np.random.default_rng(0).random(len(table))
        table.to_parquet(path, row_group_size=100_000)
        return path

    def command(self, source: Path, output: Path) -> list[str]:
        step = [sys.executable, "-m", PACKAGE, "predict"]
        return [*step, "--input", str(source), "--output", str(output)]

    def test_killed(self, large):
        """kill -9 in the middle leaves the old output, and the next try works."""
        output = self.folder / "out" / "o.parquet"
        output.parent.mkdir()
        output.write_bytes(b"the old one")
        running = subprocess.Popen(self.command(large, output), stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while not list(output.parent.glob(".o.parquet.*")) and time.monotonic() < until:
            time.sleep(0.01)
        running.kill()
        running.wait()
        assert output.read_bytes() == b"the old one"
        assert len(list(output.parent.iterdir())) == 2, "it was not killed in the middle"
        assert subprocess.run(self.command(large, output), capture_output=True).returncode == 0
        assert len(pd.read_parquet(output)) == 600_000

    def test_full_disk(self, large, settings):
        """A file that may not grow on: the old output stays, nothing half-written beside it."""
        settings({"data.id": "key"})
        output = self.folder / "out" / "o.parquet"
        assert subprocess.run(self.command(large, output), capture_output=True).returncode == 0
        before = output.read_bytes()
        half = f'ulimit -f {len(before) // 2048}; exec "$@"'
        limited = ["bash", "-c", half, "-", *self.command(large, output)]
        done = subprocess.run(limited, capture_output=True, text=True)
        refused((done.returncode, "", done.stderr), "o.parquet", "cannot be written")
        assert [p.name for p in output.parent.iterdir()] == ["o.parquet"]
        assert output.read_bytes() == before
