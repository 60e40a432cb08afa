"""`make upgrade` in a project with its environment: it finds the template by itself."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import attach
from ladder import LINE, RECORD, files, recorded

pytestmark = pytest.mark.slow


@pytest.fixture
def project(ladder, stock, environment) -> Path:
    """A fresh project of level 0 by a template of this test's own."""
    ladder.template = stock.template.copy(ladder.folder / "template")
    return attach(ladder.generate(), environment)


def make(ladder, project: Path, *words: str):
    return ladder.run("make", "upgrade", *words, cwd=project)


def tracked(project: Path) -> dict:
    return {name: content for name, content in files(project).items() if ".egg-info" not in name}


def test_up_by_itself_and_twice(ladder, stock, project):
    done = make(ladder, project, "LEVEL=1", "DRY_RUN=1")
    assert done.returncode == 0, done.stderr
    assert f"add {stock.only(1)[0]}" in done.stdout
    assert ladder.git(project, "status", "--porcelain") == ""
    done = make(ladder, project, "LEVEL=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "level 0 -> 1" in done.stdout
    assert tracked(project) == files(stock.fresh("1"))
    assert recorded(project)["template"]["source"] == str(ladder.template.folder)
    refused = make(ladder, project, "LEVEL=1")
    assert refused.returncode
    assert "MERGE_HEAD" in refused.stderr
    assert "Traceback" not in refused.stderr
    ladder.git(project, "commit", "-q", "--no-edit")
    done = make(ladder, project)
    assert done.returncode == 0
    assert "nothing to do" in done.stdout


def test_down_again(ladder, project):
    """The commands work, although Python's caches keep the folders of the level above."""
    for level in ("1", "0"):
        assert make(ladder, project, f"LEVEL={level}").returncode == 0
        ladder.git(project, "commit", "-q", "--no-edit")
    done = make(ladder, project)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout


def test_versions_of_a_template_with_an_address(ladder, project):
    """VERSION= is a tag, and the digest is proved by the clone's history."""
    template = ladder.template
    ladder.git(template.folder, "tag", "one")
    template.replace("params.yaml", "task:", "# two\ntask:")
    template.commit()
    ladder.git(template.folder, "tag", "two")
    template.replace("params.yaml", "task:", "# three\ntask:")
    template.commit()
    (project / "LICENSE").unlink()
    ladder.commit(project)
    done = make(ladder, project, "VERSION=two")
    assert done.returncode == 0, done.stderr
    assert "cannot be proved" not in done.stdout
    text = (project / "params.yaml").read_text()
    assert "# two\n" in text
    assert "# three\n" not in text
    told = recorded(project)["template"]
    assert told["source"] == str(template.folder)
    assert told["commit"] == ladder.git(template.folder, "rev-parse", "two").strip()
    assert "remote" not in told
    ladder.git(project, "commit", "-q", "--no-edit")
    address = f"file://{template.folder}"
    done = make(ladder, project, f"TEMPLATE={address}", "LEVEL=1")
    assert done.returncode == 0, done.stderr
    assert "# three\n" in (project / "params.yaml").read_text()
    assert recorded(project)["template"]["source"] == f"git+{address}"  # as cookiecutter takes it
    ladder.git(project, "commit", "-q", "--no-edit")
    shutil.rmtree(template.folder / ".git/refs/tags")
    missing = make(ladder, project, "VERSION=nine")
    assert missing.returncode
    assert "TEMPLATE=" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_the_remote_is_looked_at_first(ladder, stock, project):
    """A stale clone is left alone for the newest tag of its remote; offline it is taken, aloud."""
    remote, clone = ladder.template, ladder.folder / "clone"
    ladder.git(ladder.folder, "clone", "-q", f"file://{remote.folder}", clone)
    text = (project / RECORD).read_text(encoding="utf-8").replace(str(remote.folder), str(clone))
    text = text.replace("  version:", f'  remote: "file://{remote.folder}"\n  version:')
    (project / RECORD).write_text(text, encoding="utf-8")
    ladder.commit(project)
    assert make(ladder, project, "CHECK=1").returncode == 0
    first = recorded(project)["template"]["commit"]
    for number, tags in {"two": ["v0.9.0", "v0.10.0"], "three": []}.items():
        remote.replace("params.yaml", "task:", f"# {number}\ntask:")
        remote.commit()
        for tag in tags:
            ladder.git(remote.folder, "-c", "user.name=A", "tag", "-a", "-m", tag, tag)
    done = make(ladder, project, "CHECK=1")
    assert (done.returncode, "behind: make upgrade" in done.stdout) == (2, True), done.stderr
    done = make(ladder, project)
    assert (done.returncode, done.stderr) == (0, "")
    text = (project / "params.yaml").read_text()
    assert "# two\n" in text
    assert "# three\n" not in text
    told = recorded(project)["template"]
    newest = ladder.git(remote.folder, "rev-parse", "v0.10.0^{commit}").strip()
    assert (told["source"], told["commit"]) == (str(clone), newest)
    ladder.git(project, "commit", "-q", "--no-edit")
    assert "nothing to do" in make(ladder, project).stdout
    older = make(ladder, project, f"VERSION={first}")
    assert "name a newer one with VERSION= or TEMPLATE=" in older.stderr
    assert "make upgrade ALLOW_OLDER=1" in older.stderr
    ladder.git(clone, "pull", "-q")  # now it is ahead of the newest tag, and so is the project
    assert make(ladder, project).returncode == 0
    ladder.git(project, "commit", "-q", "--no-edit")
    assert "# three\n" in (project / "params.yaml").read_text()
    ladder.git(clone, "reset", "-q", "--hard", first)
    assert "nothing to do" in make(ladder, project).stdout
    done = make(ladder, project, "DIFF=1")
    assert (done.returncode, done.stdout) == (0, "")
    remote.folder.rename(ladder.folder / "away")
    done = make(ladder, project, "LEVEL=1")
    assert done.returncode
    assert f"took the template in {clone} as it is" in done.stderr
    assert "is older than the recorded commit" in done.stderr or "lacks the" in done.stderr
    assert "Traceback" not in done.stderr
    assert "level 0 -> 1" in make(ladder, project, "LEVEL=1", "ALLOW_OLDER=1").stdout


def test_a_template_that_moved(ladder, project):
    """A sentence names TEMPLATE=; with it the upgrade works, and records the new place."""
    moved = ladder.folder / "moved"
    ladder.template.folder.rename(moved)
    before = tracked(project)
    done = make(ladder, project, "LEVEL=1")
    assert done.returncode
    assert f"no template at {ladder.template.folder}: name it with TEMPLATE=" in done.stderr
    assert "Traceback" not in done.stderr
    assert ladder.git(project, "status", "--porcelain") == ""
    assert tracked(project) == before
    done = make(ladder, project, "LEVEL=1", f"TEMPLATE={moved}")
    assert done.returncode == 0, done.stderr
    assert LINE in (project / "README.md").read_text(encoding="utf-8")
    assert recorded(project)["template"]["source"] == str(moved)


def test_a_template_whose_clone_is_gone_is_found_by_its_remote(ladder, project):
    moved = ladder.folder / "moved"
    ladder.template.folder.rename(moved)
    text = (project / RECORD).read_text(encoding="utf-8")
    text = text.replace("  version:", f'  remote: "file://{moved}"\n  version:')
    (project / RECORD).write_text(text, encoding="utf-8")
    ladder.commit(project)
    done = make(ladder, project, "LEVEL=1")
    assert "level 0 -> 1" in done.stdout, done.stderr
    assert recorded(project)["template"]["source"] == f"git+file://{moved}"


def test_mistakes_get_a_sentence(ladder, project):
    """No template at all, a template of another kind, an answers file that tells nothing."""
    other = ladder.folder / "other"
    other.mkdir()
    (other / "cookiecutter.json").write_text("{}")
    cases = {f"TEMPLATE={other}": "is no template that can upgrade"}
    cases |= {"TEMPLATE=/nowhere": "no template at /nowhere", "LEVEL=7": "7 is not offered"}
    for word, said in cases.items():
        done = make(ladder, project, word)
        assert done.returncode, word
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    (project / RECORD).unlink()
    done = make(ladder, project)
    assert "git checkout HEAD -- .cookiecutter.yaml brings it back" in done.stderr
    assert "Traceback" not in done.stderr
    (project / RECORD).write_text("default_context: {}\n")
    done = make(ladder, project)
    assert done.returncode
    assert "does not say where the template is: use TEMPLATE=" in done.stderr
    ladder.commit(project)


def test_what_a_project_has_learned_stays(ladder, project):
    """Environment, store, data and secrets are the same bytes after the upgrade."""
    for name in ("mlflow.db", "mlartifacts/m/model.skops", "data/raw/2013-01.parquet", ".env"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(os.urandom(64))
    ignored = ladder.git(project, "ls-files", "-oi", "--exclude-standard", "-z").split("\0")[:-1]
    keep = [n for n in ignored if "__pycache__" not in n and not (project / n).is_symlink()]
    before = {name: (project / name).stat() for name in keep}
    assert make(ladder, project, "LEVEL=1").returncode == 0
    for name, was in before.items():
        now = (project / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (was.st_ino, was.st_mtime_ns), name
