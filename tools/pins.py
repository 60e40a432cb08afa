"""Make the exact pins anew from the ranges: `make pins`.

Writes requirements.txt of the template, requirements/*.txt of the project, and the import names that
a project's package must not have.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COMPILE = ["--universal", "--python-version", "3.11", "--generate-hashes", "--upgrade"]
COMPILE += ["--no-header", "--no-annotate", "--quiet"]
USABLE = re.compile(r"[a-z][a-z0-9_]*")


def uv(*arguments: str | Path, cwd: Path = TEMPLATE, stdin: str | None = None) -> None:
    command = [str(BIN / "uv"), *map(str, arguments)]
    subprocess.run(command, cwd=cwd, check=True, input=stdin, text=True)


def importable(environment: Path) -> list[str]:
    """The top-level modules that an environment brings, as names a package could have."""
    code = "import importlib.metadata as m; print(*m.packages_distributions())"
    command = [environment / "bin" / "python", "-c", code]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return sorted({name.lower() for name in found if USABLE.fullmatch(name.lower())})


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        generate = [BIN / "cookiecutter", TEMPLATE, "--no-input", "-o", folder]
        subprocess.run([str(word) for word in generate], check=True, stdout=subprocess.DEVNULL)
        (project,) = Path(folder).iterdir()
        pins = TEMPLATE / "<<cookiecutter.project_slug>>" / "requirements"
        sources = ["pyproject.toml", "--group", "dev"]
        uv("pip", "compile", *sources, *COMPILE, "-o", pins / "experiment.txt", cwd=project)
        example = ["--group", "example", "--no-deps"]  # its data files alone are used
        uv("pip", "compile", *example, *COMPILE, "-o", pins / "example.txt", cwd=project)
        uv("pip", "compile", "-", *COMPILE, "-o", pins / "uv.txt", stdin="uv>=0.11\n")
        environment = Path(folder) / "environment"
        uv("venv", "--quiet", environment)
        words = [
            word
            for name in ("experiment", "example", "uv")
            for word in ("-r", pins / f"{name}.txt")
        ]
        uv("pip", "install", "--quiet", "-p", environment, "--require-hashes", *words)
        names = {*importable(environment), "setuptools", "pkg_resources", "pip"}
        names |= {"src", "tests", "test", "notebooks", "data", "requirements"}  # the project's own
        text = "\n".join(sorted(names)) + "\n"
        (TEMPLATE / "hooks" / "taken_names.txt").write_text(text, encoding="utf-8")
    groups = ["--group", "dev", "--group", "server"]
    uv("pip", "compile", *groups, *COMPILE, "-o", TEMPLATE / "requirements.txt")


if __name__ == "__main__":
    main()
