"""A project in a folder of a larger repository: its workflows go where GitHub looks, to the root.

.github/workflows/ci.yml of the project is .github/workflows/SLUG-ci.yml of the repository. An upgrade
merges it under its path in the project; only what reads HEAD or writes files asks for the other one.
"""

import re
from pathlib import Path

from plumbing import ask, git

WORKFLOWS = ".github/workflows/"
HOOKS = ".pre-commit-config.yaml"  # pre-commit runs them in the repository's root
# Branches that a workflow writes: each project has its own.
BRANCHES = r"(continuous-training/state|template/upgrade|(?<=refs/heads/)production)\b"


def place(path: str, prefix: str, slug: str) -> str:
    """Where a file of the project is, from the repository's root; the prefix ends with a slash."""
    moves = prefix and path.startswith(WORKFLOWS)
    return f"{WORKFLOWS}{slug}-{path.removeprefix(WORKFLOWS)}" if moves else prefix + path


def adapted(text: str, prefix: str, slug: str) -> str:
    """A workflow of the template, for the root: what it runs on, where it runs, what it calls."""
    folder = prefix.rstrip("/")
    paths = f'    paths: ["{folder}/**", "{WORKFLOWS}{slug}-*.yml"]\n'
    run = f"    defaults:\n      run:\n        working-directory: {folder}\n"
    head, mark, jobs = text.partition("\njobs:\n")
    head = re.sub(r"^(name: |  group: )", rf"\g<1>{slug}-", head, flags=re.M)
    head = re.sub(
        r"^  (push|pull_request):\n(    .*\n)*", lambda event: event[0] + paths, head, flags=re.M
    )
    parts = re.split(r"^(?=  [\w-]+:)", jobs, flags=re.M)
    for number, job in enumerate(parts):
        if "actions/checkout@" in job:  # without it the folder is not there
            first, end, rest = job.partition("\n")
            parts[number] = first + end + run + rest
    jobs = re.sub(r"^( +context: )\.$", rf"\g<1>{folder}", "".join(parts), flags=re.M)
    jobs = re.sub(
        r"(?<=uses: actions/upload-artifact@)(.*\n)+?(?=      - |  \w|\n|\Z)",
        lambda step: uploads(step[0], folder),
        jobs,
    )
    text = head + mark + jobs
    text = text.replace("uses: ./.github/actions/", f"uses: ./{prefix}.github/actions/")
    text = re.sub(r"((?:\./\.github|actions)/workflows/)(?=[\w-]+\.yml)", rf"\g<1>{slug}-", text)
    return re.sub(BRANCHES, rf"{slug}/\1", text)


def uploads(step: str, folder: str) -> str:
    """A step with its paths, in one line or in a block, from the repository's root."""
    step = re.sub(r"^( +path: )(?!\|)", rf"\g<1>{folder}/", step, flags=re.M)
    before, mark, block = step.partition(" path: |\n")
    return before + mark + re.sub(r"^( +)(?=\S)", rf"\g<1>{folder}/", block, flags=re.M)


def adapted_hooks(text: str, prefix: str) -> str:
    """The hooks for a commit: their programs, and the files that they are for, from the root."""
    text = re.sub(r"\^(?=requirements/|\.cookiecutter)", f"^{prefix}", text)
    text = text.replace(" .venv/bin/", f" {prefix}.venv/bin/")
    return text.replace("\nrepos:\n", f"\nfiles: ^{prefix}\nrepos:\n")


def plain_hooks(repository: Path, tree: str, prefix: str) -> set[str]:
    """The file with the hooks, if it is in the tree as for a repository of the project's own."""
    text = ask(repository, "cat-file", "blob", f"{tree}:{HOOKS}")
    return {HOOKS} if text is not None and f"{prefix}.venv/bin/" not in text else set()


def adapt(project: Path, prefix: str, slug: str, but: set[str] | frozenset = frozenset()) -> None:
    """Adapt hooks and workflows of a rendered project, which stay where they are, but for some."""
    hooks = project / HOOKS
    if prefix and hooks.exists() and HOOKS not in but:
        text = adapted_hooks(hooks.read_text(encoding="utf-8"), prefix)
        hooks.write_text(text, encoding="utf-8", newline="\n")
    for path in project.glob(f"{WORKFLOWS}*.yml") if prefix else ():
        if WORKFLOWS + path.name not in but:
            text = path.read_text(encoding="utf-8")
            path.write_text(adapted(text, prefix, slug), encoding="utf-8", newline="\n")


def gathered(
    repository: Path, tree: str, top: Path, prefix: str, slug: str
) -> tuple[str, set[str], set[str]]:
    """The project's tree with its workflows from the root of HEAD, at their paths in the project.

    Then the paths of those, and of the workflows that are in the project's folder alone. A workflow
    of the root is the project's own if it runs in its folder: another one may be called alike.
    """
    index, outside = {"GIT_INDEX_FILE": repository / "gathered"}, set()
    git(repository, "read-tree", tree, **index)
    inside = set(git(repository, "ls-files", "-z", "--", WORKFLOWS, **index).split("\0")[:-1])
    for entry in git(top, "ls-tree", "-z", "HEAD", WORKFLOWS).split("\0")[:-1]:
        about, _, path = entry.partition("\t")
        mode, kind, blob = about.split()
        name = path.removeprefix(f"{WORKFLOWS}{slug}-")
        mine = re.compile(rf"^ +working-directory: {re.escape(prefix.rstrip('/'))}$", re.M)
        if name != path and kind == "blob" and mine.search(git(top, "cat-file", "blob", blob)):
            entry = ("--add", "--cacheinfo", f"{mode},{blob},{WORKFLOWS}{name}")
            git(repository, "update-index", *entry, **index)
            outside.add(WORKFLOWS + name)
    return git(repository, "write-tree", **index).strip(), outside, inside - outside


def move_out(project: Path, slug: str) -> str:
    """Bring a new project's workflows to the root of the repository around it; tells what it did.

    A folder that the repository ignores is none of its projects.
    """
    prefix = ask(project, "rev-parse", "--show-prefix")
    if not prefix or ask(project, "check-ignore", "-q", ".") is not None:
        return ""
    top, taken = Path(git(project, "rev-parse", "--show-toplevel").strip()), []
    adapt(project, prefix, slug)
    files = sorted(project.glob(f"{WORKFLOWS}*.yml"))
    for path in files:
        target = top / place(WORKFLOWS + path.name, prefix, slug)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            taken.append(target.name)
        else:
            path.rename(target)
    if taken:
        return f"  {top / WORKFLOWS} has {', '.join(taken)} already: yours are in the project's"
    return f"  its workflows are in {top / WORKFLOWS}, as {slug}-*.yml" if files else ""
