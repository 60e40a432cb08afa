"""What a new release breaks: a project on the newest versions that its ranges allow.

`make fresh` resolves pyproject.toml of the highest level without the pins, then runs the project's
lint, tests and loop.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def main() -> None:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "flight-delays"

        def run(*command: str | Path, cwd: Path = project) -> None:
            print("+", *command, flush=True)
            subprocess.run([str(word) for word in command], cwd=cwd, env=environment, check=True)

        generate = (BIN / "cookiecutter", TEMPLATE, "--no-input", "-o", folder)
        run(*generate, "maturity_level=2", cwd=TEMPLATE)
        run("uv", "venv", "-q", "-p", sys.executable, ".venv")
        about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
        groups = [word for group in about["dependency-groups"] for word in ("--group", group)]
        run("uv", "pip", "install", "-q", "-p", ".venv", "--upgrade", "-e", ".", *groups)
        run("uv", "pip", "list", "-p", ".venv")
        for target in ("lint", "test", "data", "train", "evaluate", "register", "pipeline"):
            run("make", target)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {' '.join(error.cmd)}")
