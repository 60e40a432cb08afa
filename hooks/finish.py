"""What is left to do when the files are written: the level, the answers file, the first commit."""

import subprocess
from pathlib import Path

from levels import level_of


def keep_level(project: Path, package: str, level: int) -> None:
    """Remove the files of higher levels, and the folders that this leaves empty."""
    for path in sorted(p for p in project.rglob("*") if p.is_file()):
        relative = path.relative_to(project)
        if relative.parts[0] == ".git" or level_of(relative.as_posix(), package) <= level:
            continue
        path.unlink()
        for folder in path.parents:
            if folder == project or any(folder.iterdir()):
                break
            folder.rmdir()


def git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None if it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def record_commit(project: Path, template: Path) -> None:
    """Add the template's own commit to the answers file, where the template is a clean checkout."""
    if git(template, "rev-parse", "--show-toplevel") != str(template.resolve()):
        return
    commit = git(template, "rev-parse", "HEAD")
    if commit and git(template, "status", "--porcelain") == "":
        with (project / ".cookiecutter.yaml").open("a", encoding="utf-8", newline="\n") as file:
            file.write(f'  commit: "{commit}"\n')


def first_commit(project: Path, answers: dict) -> bool:
    """A new repository with one commit; False where there is no git, or a repository around it."""
    if git(project, "--version") is None or git(project, "rev-parse", "--git-dir") is not None:
        return False
    branch = git(project, "config", "init.defaultBranch") or "main"
    identity = []
    for key in ("name", "email"):
        if not git(project, "config", f"user.{key}"):
            identity += ["-c", f"user.{key}={answers[f'author_{key}']}"]
    message = f"feat: scaffold {answers['project_slug']} at MLOps level {answers['maturity_level']}"
    commit = ["-c", "commit.gpgsign=false", "commit", "-q", "--no-verify", "-m", message]
    return (
        git(project, "init", "-q", "-b", branch) is not None
        and git(project, "add", "--all") is not None
        and git(project, *identity, *commit) is not None
    )


def next_steps(project: Path, answers: dict, committed: bool) -> str:
    """At most five lines for the terminal."""
    state = "with a first commit" if committed else "without a commit of its own"
    return "\n".join(
        [
            f"{answers['project_name']} is ready in {project} ({state}). Next:",
            f"  cd {project.name} && make setup      # the tested environment, in .venv",
            "  make data train evaluate register   # the example's loop; README.md tells the rest",
        ]
    )
