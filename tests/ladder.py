"""What the tests of upgrades share: a template of their own to change, projects made by it, commands.

Nothing is mocked. The template is a copy of this one in a repository of its own, as a user's clone
would be. README.md gets one line that only higher levels have, so that no test depends on what a
level really contains.
"""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import yaml
from conftest import BIN, CLEAN, TEMPLATE

RECORD = ".cookiecutter.yaml"
INSIDE = "<<cookiecutter.project_slug>>"
PACKAGE = "<<cookiecutter.package_name>>"
LINE = "A line that only higher levels have."
IDENTITY = "[user]\n\tname = Owner\n\temail = owner@example.com\n[init]\n\tdefaultBranch = main\n"


class Template:
    """A template's folder with a git repository, to be changed and committed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """A file of the project that the template writes; PACKAGE stands for the package's name."""
        return self.folder / INSIDE / name.replace("PACKAGE", PACKAGE)

    def replace(self, name: str, old: str, new: str) -> None:
        path = self.path(name)
        text = path.read_text(encoding="utf-8")
        assert old in text, (name, old)
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def add(self, name: str, text: str, level: int = 0) -> None:
        """A new file of a level."""
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(text, encoding="utf-8")
        self.list(name, level)

    def list(self, name: str, level: int) -> None:
        """A new line in the table LEVELS."""
        table = self.folder / "hooks/levels.py"
        text = table.read_text(encoding="utf-8")
        if f"    {level}: [" not in text:
            text = text.replace("\n}\n", f"\n    {level}: [\n    ],\n}}\n", 1)
        text = text.replace(f"    {level}: [\n", f"    {level}: [\n        {name!r},\n", 1)
        table.write_text(text, encoding="utf-8")

    def move(self, name: str, new: str, level: int = 0) -> None:
        self.path(new).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).rename(self.path(new))
        self.list(new, level)

    def delete(self, name: str) -> None:
        self.path(name).unlink()

    def questions(self, **changes: object) -> None:
        """Change questions; None removes one."""
        file = self.folder / "cookiecutter.json"
        asked = json.loads(file.read_text(encoding="utf-8"))
        for key, value in changes.items():
            prompts = asked["__prompts__"]
            if value is None:
                del asked[key], prompts[key]
            else:
                asked[key] = value
                prompts.setdefault(key, key)
        file.write_text(json.dumps(asked, indent=2), encoding="utf-8")

    def commit(self) -> str:
        git(self.folder, "add", "--all")
        git(self.folder, *AS_AUTHOR, "commit", "-q", "-m", "change the template")
        return git(self.folder, "rev-parse", "HEAD").strip()

    def copy(self, folder: Path) -> "Template":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Template(folder)


AS_AUTHOR = ("-c", "user.name=Author", "-c", "user.email=author@example.com")


def make_template(folder: Path, newer: bool = False) -> Template:
    """A copy of what git would take of this template, with that line, committed.

    `newer`: on top of the template's own history, which projects record.
    """
    names = git(TEMPLATE, "ls-files", "-co", "--exclude-standard", "-z").split("\0")[:-1]
    for name in names:
        if (TEMPLATE / name).is_file():  # git still lists what was deleted and not committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TEMPLATE / name, folder / name)
    template = Template(folder)
    start = "<!-- level:start -->\n"
    higher = f'<% if cookiecutter.maturity_level != "0" %>\n{LINE}\n<% endif %>\n'
    template.replace("README.md", start, start + higher)
    git(folder, "init", "-q", "-b", "main")
    if newer:
        git(folder, "fetch", "-q", str(TEMPLATE), "HEAD")
        git(folder, "update-ref", "HEAD", "FETCH_HEAD")
    template.commit()
    return template


class Ladder:
    """A folder in which projects are made and upgraded, with a home and a temporary folder in it."""

    def __init__(self, folder: Path, template: Template) -> None:
        self.folder, self.template = folder, template
        self.home, self.temporary = folder / "home", folder / "tmp"
        for path in (self.home, self.temporary, folder / "projects"):
            path.mkdir(parents=True, exist_ok=True)
        (self.home / ".gitconfig").write_text(IDENTITY, encoding="utf-8")
        home = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / ".config")}
        self.env = CLEAN | home | {"TMPDIR": str(self.temporary)}

    def configure(self, text: str) -> None:
        """The user's own git settings."""
        (self.home / ".gitconfig").write_text(IDENTITY + text, encoding="utf-8")

    def run(self, *command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(word) for word in command],
            cwd=cwd or self.folder,
            env=self.env,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
        )

    def git(self, folder: Path, *arguments: str | Path) -> str:
        return git(folder, *arguments, env=self.env)

    def generate(self, *options: str, output: Path | None = None, **answers: str) -> Path:
        output = output or self.folder / "projects"
        given = [f"{key}={value}" for key, value in answers.items()]
        command = [BIN / "cookiecutter", self.template.folder, "--no-input", "-o", output]
        done = self.run(*command, *options, *given)
        assert done.returncode == 0, done.stderr
        return output / answers.get("project_slug", "flight-delays")

    def plain(self, project: Path, level: str | None, *options: str) -> subprocess.CompletedProcess:
        """The documented command of cookiecutter's own."""
        command = [BIN / "cookiecutter", self.template.folder, "--no-input", "-f"]
        command += ["--config-file", project / RECORD, "-o", project.parent]
        given = [f"maturity_level={level}"] if level else []
        return self.run(*command, *options, *given)

    def engine(
        self, project: Path, level: str | None, *options: str
    ) -> subprocess.CompletedProcess:
        """What `make upgrade` runs."""
        given = ["--level", level] if level else []
        return self.run(
            BIN / "python", self.template.folder / "hooks/upgrade.py", project, *given, *options
        )

    def upgrade(self, project: Path, level: str | None, *options: str) -> str:
        """An upgrade without a conflict, committed; what it said."""
        done = self.engine(project, level, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        if (project / ".git/MERGE_HEAD").exists():
            self.git(project, "commit", "-q", "--no-edit")
        return done.stdout

    def commit(self, project: Path, message: str = "my work") -> None:
        self.git(project, "add", "--all", ".")
        self.git(project, "commit", "-q", "--allow-empty", "-m", message)


def git(folder: Path, *arguments: str | Path, env: dict[str, str] = CLEAN) -> str:
    command = ["git", "-C", str(folder), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, env=env)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return os.fsdecode(done.stdout)


def snapshot(folder: Path, repository: bool = False) -> dict[str, tuple[int, bytes]]:
    """Path -> (mode, content or target) of all below a folder, `.git` only if asked for."""
    found = {}
    for place, folders, names in os.walk(folder):
        if not repository and ".git" in folders:
            folders.remove(".git")
        for name in names + [f for f in folders if (Path(place) / f).is_symlink()] + folders:
            path = Path(place, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                content = os.fsencode(path.readlink())
            else:
                content = b"" if stat.S_ISDIR(mode) else path.read_bytes()
            found[os.fsdecode(os.fsencode(path.relative_to(folder)))] = (mode, content)
    return found


def files(project: Path) -> dict[str, tuple[int, bytes]]:
    """The files that git tracks in a project or would track, without the answers file."""
    names = git(project, "ls-files", "-co", "--exclude-standard", "-z").split("\0")[:-1]
    here = snapshot(project)
    return {name: here[name] for name in sorted(set(names)) if name in here and name != RECORD}


def conflicts(project: Path) -> dict[str, str]:
    """Path -> its stages in the index."""
    stages: dict[str, str] = {}
    for entry in git(project, "ls-files", "-u", "-z").split("\0")[:-1]:
        about, _, path = entry.partition("\t")
        stages[path] = stages.get(path, "") + about[-1]
    return stages


def recorded(project: Path) -> dict:
    return yaml.safe_load((project / RECORD).read_text(encoding="utf-8"))


class Stock:
    """Projects as generated, made once for all tests of a process, and copied for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.template = make_template(folder / "template")

    def fresh(self, level: str = "0", task: str = "classification") -> Path:
        """A project that nobody may change."""
        place = self.folder / f"{level}-{task}"
        if not place.exists():
            ladder = Ladder(self.folder / "work", self.template)
            place.mkdir()
            ladder.generate(output=place, maturity_level=level, task=task)
        return place / "flight-delays"

    def only(self, level: int) -> list[str]:
        """The files that a level brings, the longest first."""
        upper, lower = (snapshot(self.fresh(str(n))) for n in (level, level - 1))
        found = [f for f, (mode, _) in upper.items() if f not in lower and stat.S_ISREG(mode)]
        return sorted(found, key=lambda name: (-len(upper[name][1]), name))

    def project(
        self, ladder: Ladder, level: str = "0", task: str = "classification", name: str = "projects"
    ) -> Path:
        """A copy of a fresh project, to work in."""
        project = ladder.folder / name / "flight-delays"
        shutil.copytree(self.fresh(level, task), project, symlinks=True)
        return project
