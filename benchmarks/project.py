"""A generated project to measure, and how a command is measured."""

import functools
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[1]
INSIDE = Path(__file__).resolve().parent / "inside"
SLUG, PACKAGE = "flight-delays", "flight_delays"
# What a caller's shell or make may hold that changes what is measured.
UNWANTED = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS")


@dataclass(frozen=True)
class Line:
    """One figure; `ok` is None for a figure without a limit."""

    name: str
    measured: str
    limit: str = ""
    ok: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "ok", False: "over", None: "-"}[self.ok]
        return f"{self.name:<24} {self.measured:<64} {self.limit:<22} {verdict}"


@dataclass(frozen=True)
class Used:
    """What a command took: seconds of the clock, the peak of its largest process in MB."""

    seconds: float
    megabytes: float
    output: str


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with the template's own tools first, without UNWANTED."""
    kept = {k: v for k, v in os.environ.items() if k not in UNWANTED and "MLFLOW" not in k}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return kept | changes


def measure(command: list[str | Path], folder: Path, env: dict[str, str] | None = None) -> Used:
    """Run a command to its end; RuntimeError with what it printed if it fails."""
    log = folder / ".bench.log"
    with log.open("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=env or environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        # wait4 tells the memory of this process and its children alone, unlike getrusage.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    log.unlink()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{text[-2000:]}")
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return Used(seconds, usage.ru_maxrss / unit, text)


def median(values: list[float]) -> float:
    return statistics.median(values)


def generate(
    folder: Path, env: dict[str, str] | None = None, answers: dict[str, str] | None = None
) -> Used:
    """Generate the default project, or one of other answers, as `folder`/SLUG."""
    folder.mkdir(parents=True, exist_ok=True)
    cookiecutter = Path(sys.executable).with_name("cookiecutter")
    names = {"project_slug": SLUG, "package_name": PACKAGE}
    given = [f"{key}={value}" for key, value in (names | (answers or {})).items()]
    config = folder / ".cookiecutterrc"  # not the user's own, and no trace in the user's home
    config.write_text(f"replay_dir: {folder / '.replay'}\n", encoding="utf-8")
    options = ["--no-input", "--config-file", config, "--output-dir", folder]
    return measure([cookiecutter, TEMPLATE, *options, *given], folder, env)


class Workshop:
    """A temporary folder, and in it the project that the benchmarks share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @functools.cached_property
    def project(self) -> Path:
        """A project that is set up and has the example's batches."""
        generate(self.folder / "shared")
        project = self.folder / "shared" / SLUG
        for target in ("setup", "data"):
            measure(["make", target], project)
        return project

    @functools.cached_property
    def model(self) -> Path:
        """The same project, with a registered model."""
        for target in ("train", "evaluate", "register"):
            measure(["make", target], self.project)
        return self.project

    @functools.cached_property
    def pipeline_project(self) -> Path:
        """A project of level 1 that is set up and has the example's batches."""
        return self._with_data("1")

    def _with_data(self, level: str) -> Path:
        generate(self.folder / f"level-{level}", answers={"maturity_level": level})
        project = self.folder / f"level-{level}" / SLUG
        for target in ("setup", "data"):
            measure(["make", target], project)
        return project

    @functools.cached_property
    def champion(self) -> Path:
        """The same project, with a first champion."""
        return self._with_champion(self.pipeline_project)

    @functools.cached_property
    def delivery_project(self) -> Path:
        """A project of level 2 with a first champion."""
        return self._with_champion(self._with_data("2"))

    def _with_champion(self, project: Path) -> Path:
        identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.com"]
        for command in (
            ["make", "pipeline"],
            ["git", "add", "--all"],
            ["git", *identity, "commit", "-q", "--no-verify", "-m", "chore: state"],
            ["make", "retrain"],
        ):
            measure(command, project)
        return project

    def python(self, *arguments: str | Path) -> Used:
        """Run the project's own Python in the project."""
        return measure([self.project / ".venv/bin/python", *arguments], self.project)

    def step(self, *arguments: str | Path) -> Used:
        """`python -m PACKAGE STEP ...`."""
        return self.python("-m", PACKAGE, *arguments)

    def bare(self, script: str, *arguments: str | Path) -> Used:
        """A script of inside/, which does with scikit-learn alone what a step does.

        Its threads wait for each other as briefly as is best on a busy machine: otherwise anything
        else that runs makes the peer many times slower, and every step looks good beside it.
        """
        command = [self.project / ".venv/bin/python", INSIDE / script, PACKAGE, *arguments]
        return measure(command, self.project, environment(GOMP_SPINCOUNT="1000"))

    def flights(self, rows: int) -> Path:
        """A Parquet file with this many rows: the flights of the year, again and again."""
        path = self.folder / f"{rows}.parquet"
        if not path.exists():
            self.python(INSIDE / "repeat.py", path, str(rows))
        return path
