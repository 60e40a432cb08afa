"""Batches that arrive: each content once, however often it is offered."""

import pytest

from << cookiecutter.package_name >>.continuous_training import incoming
from << cookiecutter.package_name >>.experiment.errors import UserError


@pytest.fixture
def arrives(tmp_path, monkeypatch):
    """Puts a file where batches arrive and fetches what is new; returns the names."""
    monkeypatch.setattr(incoming, "ROOT", tmp_path)
    (tmp_path / "arrived").mkdir()

    def arrive(name: str | None = None, content: str = "") -> list[str]:
        if name is not None:
            (tmp_path / "arrived" / name).write_text(content, encoding="utf-8")
        return incoming.fetch("arrived/*.csv", tmp_path / "data/raw")

    return arrive


def test_a_batch_is_fetched_once_and_again_when_it_is_corrected(arrives, tmp_path):
    """Labels that were corrected leave the size as it was."""
    assert arrives("a.csv", "label\n0\n") == ["a.csv"]
    assert arrives() == []
    assert incoming.fetch(f"file://{tmp_path}/arrived/*.csv", tmp_path / "data/raw") == []
    assert arrives("a.csv", "label\n1\n") == ["a.csv"]
    assert (tmp_path / "data/raw/a.csv").read_text(encoding="utf-8") == "label\n1\n"
    assert arrives("a.csv", "label\n1\n") == [], "it was only touched"


def test_a_quarantined_batch_stays_away_until_it_is_mended(arrives, tmp_path):
    """On each machine that has data/incoming.json, as a new runner has."""
    assert arrives("a.csv", "bad") == ["a.csv"]
    incoming.set_aside("a.csv")
    (tmp_path / "data/raw/a.csv").unlink()
    assert arrives() == []
    assert arrives("a.csv", "bad") == [], "it was offered again"
    assert arrives("a.csv", "mended") == ["a.csv"]


def test_a_clone_without_the_batches_fetches_them(arrives, tmp_path):
    arrives("a.csv", "label\n0\n")
    (tmp_path / "data/raw/a.csv").unlink()
    assert arrives() == ["a.csv"]


def test_a_record_that_a_merge_has_broken(arrives, tmp_path):
    arrives("a.csv", "label\n0\n")
    (tmp_path / "data/incoming.json").write_text("{\n=======\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"incoming\.json is not valid YAML"):
        arrives()


def test_a_place_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match=r"incoming: nowhere://x/\*"):
        incoming.fetch("nowhere://x/*", tmp_path)
