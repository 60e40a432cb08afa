"""What a new release breaks: a project on the newest versions that its ranges allow.

`make fresh` resolves pyproject.toml without the pins, then runs the project's lint, tests and loop.
"""

import os
import subprocess
import sys
import tempfile
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

        run(BIN / "cookiecutter", TEMPLATE, "--no-input", "-o", folder, cwd=TEMPLATE)
        run("uv", "venv", "-q", "-p", sys.executable, ".venv")
        groups = ["--group", "dev", "--group", "example"]
        run("uv", "pip", "install", "-q", "-p", ".venv", "--upgrade", "-e", ".", *groups)
        run("uv", "pip", "list", "-p", ".venv")
        for target in ("lint", "test", "data", "train", "evaluate", "register"):
            run("make", target)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {' '.join(error.cmd)}")
