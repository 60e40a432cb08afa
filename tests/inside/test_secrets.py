"""Secrets of twenty shapes, wherever an address is taken: none in what a step prints or writes."""

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import module

ROOT = Path.cwd()
HERE = "127.0.0.1:9"  # nobody listens there
# What must not be seen, and the address that holds it; `{}` is the scheme.
SHAPES = {
    "plain": ("Zq7secretword", "{}://user:Zq7secretword@" + HERE + "/x"),
    "slash": ("Zq7/secretword", "{}://user:Zq7/secretword@" + HERE + "/x"),
    "slashes": ("Zq7/sec/retword", "{}://user:Zq7/sec/retword@" + HERE + "/x"),
    "at": ("Zq7@secretword", "{}://user:Zq7@secretword@" + HERE + "/x"),
    "question mark": ("Zq7?secretword", "{}://user:Zq7?secretword@" + HERE + "/x"),
    "hash": ("Zq7#secretword", "{}://user:Zq7#secretword@" + HERE + "/x"),
    "colon": ("Zq7:secretword", "{}://user:Zq7:secretword@" + HERE + "/x"),
    "ampersand": ("Zq7&secretword", "{}://user:Zq7&secretword@" + HERE + "/x"),
    "percent": ("Zq7%secretword", "{}://user:Zq7%secretword@" + HERE + "/x"),
    "encoded": ("Zq7/secret@word", "{}://user:" + quote("Zq7/secret@word", "") + "@" + HERE),
    "space": ("Zq7 secretword", "{}://user:Zq7 secretword@" + HERE + "/x"),
    "quotes": ("Zq7'\"secretword", "{}://user:Zq7'\"secretword@" + HERE + "/x"),
    "brackets": ("Zq7[secretword]", "{}://user:Zq7[secretword]@" + HERE + "/x"),
    "no ASCII": ("Zq7ßecretwörd", "{}://user:Zq7ßecretwörd@" + HERE + "/x"),
    "long": ("Zq7" + "secretword" * 80, "{}://user:Zq7" + "secretword" * 80 + "@" + HERE),
    "number": ("4711081598", "{}://user:4711081598@" + HERE + "/x"),
    "no user": ("Zq7secretword", "{}://:Zq7secretword@" + HERE + "/x"),
    "password in the query": ("Zq7secretword", "{}://" + HERE + "/x?password=Zq7secretword"),
    "token in the query": ("Zq7secretword", "{}://" + HERE + "/x?a=1&token=Zq7secretword"),
    "token as user": ("Zq7secretword", "{}://Zq7secretword@" + HERE + "/x"),
}


def leaks(text: str, secret: str) -> list[str]:
    """Parts of six letters of the secret, and its encoded form, that are in the text."""
    parts = [secret[k : k + 6] for k in range(min(len(secret), 40) - 5)]
    return [part for part in [*parts, quote(secret, "")] if part in text]


def written(since: dict[Path, float]) -> str:
    """What the files hold that are new or changed."""
    files = [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]
    new = [path for path in files if path.stat().st_mtime_ns != since.get(path)]
    new = [path for path in new if path.suffix != ".pyc"]  # code says "secret" itself
    return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in new)


def files() -> dict[Path, float]:
    return {path: path.stat().st_mtime_ns for path in ROOT.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", SHAPES)
def test_no_step_shows_it(name, flights, settings, step, monkeypatch):
    secret, address = SHAPES[name]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("ALERT_WEBHOOK", address.format("http"))
    before = files()
    said = ""
    for variable, words, scheme in [
        ("MLFLOW_TRACKING_URI", ["train"], "http"),
        ("MLFLOW_TRACKING_URI", ["ui"], "postgresql+nodriver"),
        ("PREDICTION_LOG_URL", ["monitor", "--env", "dev"], "postgresql"),
        ("FEATURE_STORE_URL", ["materialize"], "postgresql"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(variable, address.format(scheme))
            code, out, err = step(*words)
            assert code == 1, (words, err)
            said += out + err
    remote = address.format("https")  # of DVC, or of `incoming`: of no variable
    if " " not in remote:  # else only a variable says where it ends
        said += str(
            module("experiment.errors").UserError(f"incoming: cannot pull from '{remote}'.")
        )
    assert not leaks(said, secret), said
    assert not leaks(written(before), secret)


def test_the_environment_is_searched_for_words(monkeypatch):
    """A secret of a variable is hidden wherever it stands, in each form; what is public is not."""
    redact = module("experiment.redaction").redact
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "Zq7secretword")
    monkeypatch.setenv("EXPORTER_HEADERS", "token=Yq7secretword,x=1")
    monkeypatch.setenv("ALERT_WEBHOOK", "https://hooks.example/services/T0123/Xq7secretword")
    monkeypatch.setenv("PREDICTION_LOG_URL", "postgresql://mlflow:mlflow@mlflow.example/mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:Wq7%2Fsecret@h.example")
    for word in ("Zq7secretword", "Yq7secretword", "Xq7secretword", "Wq7/secret", "Wq7%2Fsecret"):
        assert word not in redact(f"<{word}>"), word
    assert redact("mlflow.db: https://h.example/a?b=c") == "mlflow.db: https://h.example/a?***"
    basic = "bWU6V3E3L3NlY3JldA=="
    assert basic not in redact(f"{{'Authorization': '{basic}'}}")
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "Zq7secretword"
