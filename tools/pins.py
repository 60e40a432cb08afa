"""Make the exact pins anew from the ranges: `make pins`; `make pins KEEP=1` keeps those that are there.

Writes requirements.txt of the template, requirements/*.txt of the project, and the import names that
a project's package must not have.
"""

import re
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COMPILE = ["--universal", "--python-version", "3.11", "--generate-hashes", "--upgrade"]
COMPILE += ["--no-header", "--no-annotate", "--quiet"]
# DVC's extra for S3 needs it, and its owner installs that beside the pins.
CONSTRAINTS = "python-dateutil<3\n"
# Groups of pyproject.toml, but the first: that is the project's own dependencies, and dev.
FLOORS = ["experiment", "continuous-training", "delivery"]
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


def added(floor: Path, below: Path) -> str:
    """The pins, with their hashes, that one file has beyond another."""
    have, *blocks = (re.split(r"^(?=[a-z0-9])", f.read_text(), flags=re.M) for f in (below, floor))
    return "".join(block for block in blocks[0] if block not in have)


def main(keep: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        generate = [BIN / "cookiecutter", TEMPLATE, "--no-input", "-o", folder]
        generate += ["maturity_level=2"]
        subprocess.run([str(word) for word in generate], check=True, stdout=subprocess.DEVNULL)
        (project,) = Path(folder).iterdir()
        pins = TEMPLATE / "<<cookiecutter.project_slug>>" / "requirements"
        # One resolution for all levels; a file holds what its level adds to the one below.
        constraints = Path(folder) / "constraints.txt"
        present = [re.sub(r" *\\\n *--hash=\S+", "", f.read_text()) for f in pins.glob("*.txt")]
        constraints.write_text(CONSTRAINTS + "".join(present if keep else []))
        groups, compiled = ["--group", "dev"], []
        for floor in FLOORS:
            groups += ["--group", floor] if compiled else []
            compiled.append((Path(folder) / f"{floor}.txt", list(groups)))
        whole = compiled[-1][0]
        for file, chosen in reversed(compiled):
            limit = ["-c", whole if file != whole else constraints]
            command = ["pip", "compile", "pyproject.toml", *chosen, *COMPILE, *limit, "-o", file]
            uv(*command, cwd=project)
        (pins / "experiment.txt").write_text(compiled[0][0].read_text())
        for (below, _), (file, _) in pairwise(compiled):
            (pins / file.name.replace("-", "_")).write_text(added(file, below))
        service = ["--group", "service", "-c", whole]  # what the image holds
        uv("pip", "compile", *service, *COMPILE, "-o", pins / "service.txt", cwd=project)
        example = ["--group", "example", "--no-deps"]  # its data files alone are used
        uv("pip", "compile", *example, *COMPILE, "-o", pins / "example.txt", cwd=project)
        if not keep:
            uv("pip", "compile", "-", *COMPILE, "-o", pins / "uv.txt", stdin="uv>=0.11\n")
        environment = Path(folder) / "environment"
        uv("venv", "--quiet", environment)
        words = [word for file in sorted(pins.glob("*.txt")) for word in ("-r", file)]
        uv("pip", "install", "--quiet", "-p", environment, "--require-hashes", *words)
        names = {*importable(environment), "setuptools", "pkg_resources", "pip"}
        names |= {"pyspark", "py4j"}  # of a group that is not pinned here
        names |= {"src", "tests", "test", "notebooks", "data", "requirements"}  # the project's own
        text = "\n".join(sorted(names)) + "\n"
        (TEMPLATE / "hooks" / "taken_names.txt").write_text(text, encoding="utf-8")
    options = [word for word in COMPILE if not (keep and word == "--upgrade")]
    uv("pip", "compile", "--group", "dev", *options, "-o", TEMPLATE / "requirements.txt")


if __name__ == "__main__":
    main(keep="--keep" in sys.argv)
