"""Write the tree of a generated project into README.md: `tree.py`, or `tree.py --check`.

The levels are those of LEVELS; the words are the first line of each file's docstring or comment, and
those of NOTES for files that have none.
"""

import ast
import re
import sys
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TEMPLATE / "hooks"))

from levels import level_of  # noqa: E402

SOURCE = TEMPLATE / "<<cookiecutter.project_slug>>"
PACKAGE = "flight_delays"
START, END = "<!-- tree:start -->\n```\n", "```\n<!-- tree:end -->"
NOTES = {
    ".cookiecutter.yaml": "Your answers, for an upgrade",
    ".dockerignore": "What the image does not see",
    ".dvc/config": "The remote of the data: a folder, until you name another",
    ".dvc/.gitignore": "",
    ".gitattributes": "",
    ".gitignore": "",
    "LICENSE": "",
    "README.md": "How to use the project, and your own data",
    "deploy": "Kubernetes, with kustomize: a base, and an overlay for each environment",
    "notebooks": "Explore, train, evaluate and register",
    "pyproject.toml": "The package, and the ranges of its dependencies",
    "requirements": "The exact versions that were tested, with hashes",
    "src/flight_delays": "What lies directly here is yours; each folder is the template's",
    "tests": "They run on a sample of your data",
}
WHOLE = ("deploy", "notebooks", "requirements")  # whose files are not listed


def words(path: Path, name: str) -> str:
    """What a file, or a package, says of itself in its first sentence."""
    if path.is_dir():
        path /= "__init__.py"
    if name in NOTES or not path.exists():
        return NOTES.get(name, "")
    text = path.read_text(encoding="utf-8").replace("<< cookiecutter.package_name >>", PACKAGE)
    if path.suffix == ".py":
        text = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    elif path.suffix == ".jinja":
        text = text.partition("\n")[0].removeprefix("{# ").removesuffix(" #}")
    else:
        lines = text.splitlines()
        comment = [line for line in lines if line.startswith("# ")]
        text = " ".join(line[2:] for line in comment) if lines[0] in comment else ""
        text = re.split(r"[.;](?= |$)", text, maxsplit=1)[0]
    return text.rstrip(".")


def tree() -> str:
    """The tree, a line for each file or folder."""
    paths: dict[str, Path] = {}
    for path in sorted(SOURCE.rglob("*")):
        name = path.relative_to(SOURCE).as_posix()
        name = name.replace("<<cookiecutter.package_name>>", PACKAGE)
        if "__pycache__" in name or any(name.startswith(f"{folder}/") for folder in WHOLE):
            continue
        if path.name != "__init__.py" and (path.is_file() or any(path.rglob("*.*"))):
            paths[name] = path
    lines: list[str] = []

    def walk(folder: str, indent: str, below: int) -> None:
        inside = [name for name in paths if str(Path(name).parent) == (folder or ".")]
        inside.sort(key=lambda name: (paths[name].is_dir(), level(name), name))
        for name in inside:
            last = name == inside[-1]
            path, here = paths[name], level(name)
            said = re.sub(r"^Level \d: ", "", words(path, name))
            mark = f"level {here}: " if here > below and here else ""
            label = f"{indent}{'└── ' if last else '├── '}{Path(name).name}{'/' * path.is_dir()}"
            note = f"{mark}{said}".rstrip(": ")
            lines.append(f"{label:<40}<- {note}" if note else label)
            if path.is_dir() and name not in WHOLE:
                walk(name, indent + ("    " if last else "│   "), max(below, here))

    def level(name: str) -> int:
        files = [
            f
            for f, path in paths.items()
            if path.is_file() and (f == name or f.startswith(f"{name}/"))
        ]
        return min((level_of(f, PACKAGE) for f in files), default=0)

    walk("", "", 0)
    return "flight-delays/\n" + "\n".join(lines) + "\n"


def main() -> int:
    readme = TEMPLATE / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    written = before + START + tree() + END + after
    if "--check" in sys.argv:
        return int(written != text)
    readme.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
