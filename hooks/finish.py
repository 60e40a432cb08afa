"""What is left to do when the files are written: the answers file, the first commit, the next steps."""

from pathlib import Path

from plumbing import ask


def remove_empty_folders(project: Path) -> None:
    """The folders of higher levels, which are left without their files."""
    for folder in sorted((p for p in project.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def first_commit(project: Path, answers: dict) -> bool:
    """A new repository with one commit; False where there is no git, or a repository around it."""
    if ask(project, "--version") is None or ask(project, "rev-parse", "--git-dir") is not None:
        return False
    branch = ask(project, "config", "init.defaultBranch") or "main"
    identity = []
    for key in ("name", "email"):
        if not ask(project, "config", f"user.{key}"):
            identity += ["-c", f"user.{key}={answers[f'author_{key}']}"]
    message = f"feat: scaffold {answers['project_slug']} at MLOps level {answers['maturity_level']}"
    commit = ["-c", "commit.gpgsign=false", "commit", "-q", "--no-verify", "-m", message]
    return (
        ask(project, "init", "-q", "-b", branch) is not None
        and ask(project, "add", "--all") is not None
        and ask(project, *identity, *commit) is not None
    )


def next_steps(project: Path, answers: dict, committed: bool) -> str:
    """At most five lines for the terminal."""
    state = "with a first commit" if committed else "without a commit of its own"
    loop = "train evaluate register   # the example's loop"
    if answers["maturity_level"] != "0":
        loop = "retrain                   # the pipeline and the gate, on the example"
    return "\n".join(
        [
            f"{answers['project_name']} is ready in {project} ({state}). Next:",
            f"  cd {project.name} && make setup      # the tested environment, in .venv",
            f"  make data {loop}; README.md tells the rest",
        ]
    )
