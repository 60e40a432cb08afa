"""Generated projects with a real environment: the pins are installed once, each project gets them
as hard links, so that its `.venv` is its own and ready in seconds."""

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

TEMPLATE = Path(__file__).parents[1]
SOURCE = TEMPLATE / "<<cookiecutter.project_slug>>"
CACHE = TEMPLATE / ".cache"
BIN = Path(sys.executable).parent
EXAMPLE = SOURCE / "src/<<cookiecutter.package_name>>/example.py"
BATCHES = CACHE / f"batches-{hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()[:16]}"
INSIDE = Path(__file__).parent / "inside"

# Files whose tests run in their order, for each goes on from the one before.
STORIES = [
    "test_delivery_workflows",
    "test_faults",
    "test_workflows",
    "test_monitoring_workflow",
]

# A generated project must not see the template's environment, nor a store of the machine's.
CLEAN = {
    k: v
    for k, v in os.environ.items()
    if not k.startswith(("MLFLOW_", "GIT_", "PYTEST_", "MAKE", "MFLAGS"))
    and k != "PYTHONDONTWRITEBYTECODE"
}
CLEAN["GOMP_SPINCOUNT"] = "1000"  # two workers on two cores
# For this run and its workers; removed at the end, with what the tools leave in it.
TMP = Path(os.environ.setdefault("LADDER_TMP", str(CACHE / f"tmp-{os.getpid()}")))
CLEAN["TMPDIR"] = str(TMP)
CLEAN["PATH"] = f"{BIN}{os.pathsep}{CLEAN['PATH']}"
IDENTITY = {f"GIT_{who}_NAME": "Tester" for who in ("AUTHOR", "COMMITTER")}
IDENTITY |= {f"GIT_{who}_EMAIL": "t@example.com" for who in ("AUTHOR", "COMMITTER")}


def pytest_configure(config: pytest.Config) -> None:
    TMP.mkdir(parents=True, exist_ok=True)


class Stories(LoadScopeScheduling):
    """A story goes to one worker, as a whole; other tests go one by one to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if Path(file).stem in STORIES else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Stories:
    return Stories(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no worker ends long after the other."""
    long = [*STORIES, "test_own_tables", "test_commands", "test_continuous_training"]
    long += ["test_project", "test_stores"]
    places = {f"{name}.py": place for place, name in enumerate(long)}
    items.sort(key=lambda item: places.get(item.path.name, len(long)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        shutil.rmtree(TMP, ignore_errors=True)


def run(
    *command: str | Path, cwd: Path, check: bool = True, **env: str
) -> subprocess.CompletedProcess:
    """Run a command in a folder; with `check`, a failure shows what it printed."""
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=CLEAN | env, capture_output=True, text=True
    )
    if check and done.returncode:
        pytest.fail(f"{command} in {cwd}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def cookiecutter(output: Path, *options: str, **answers: str) -> subprocess.CompletedProcess:
    """The real command, without prompts, and with a configuration of its own."""
    config = CACHE / "cookiecutter.yaml"
    CACHE.mkdir(exist_ok=True)
    if not config.exists():
        config.write_text(f"cookiecutters_dir: {CACHE}/templates\nreplay_dir: {CACHE}/replay\n")
    given = [f"{key}={value}" for key, value in answers.items()]
    command = [BIN / "cookiecutter", TEMPLATE, "--no-input", "--config-file", config]
    return run(*command, "-o", output, *options, *given, cwd=output, check=False)


def generate(output: Path, **answers: str) -> Path:
    """A generated project's folder."""
    done = cookiecutter(output, **answers)
    assert done.returncode == 0, done.stderr
    (project,) = (p for p in output.iterdir() if (p / ".cookiecutter.yaml").exists())
    return project


@pytest.fixture(scope="session")
def environment() -> Path:
    """The pins of all requirements files in one relocatable environment, made once."""
    files = sorted(SOURCE.glob("requirements/*.txt"))
    key = hashlib.sha256(sys.version.encode() + b"".join(f.read_bytes() for f in files))
    folder = CACHE / f"environment-{key.hexdigest()[:16]}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "environment.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            run(
                "uv",
                "venv",
                "-q",
                "--clear",
                "--relocatable",
                "-p",
                sys.executable,
                folder,
                cwd=CACHE,
            )
            pins = [word for file in files for word in ("-r", file)]
            install = ["uv", "pip", "install", "-q", "-p", folder, "--compile-bytecode"]
            run(*install, "--require-hashes", *pins, cwd=CACHE)
            (folder / "ready").touch()
    return folder


def attach(project: Path, environment: Path) -> Path:
    """What `make setup` does, from the environment that is there."""
    run("cp", "-al", environment, project / ".venv", cwd=project)
    run("uv", "pip", "install", "-q", "-p", ".venv", "--no-deps", "-e", ".", cwd=project)
    return project


@pytest.fixture
def make_project(tmp_path: Path, environment: Path) -> Callable[..., Path]:
    """A function from answers to a generated project with its environment."""
    return lambda **answers: attach(generate(tmp_path, **answers), environment)


@pytest.fixture(scope="session")
def batches(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's batches, made once for the projects that need them."""
    with (CACHE / "batches.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not BATCHES.exists():
            project = attach(generate(tmp_path_factory.mktemp("batches")), environment)
            run(".venv/bin/python", "-m", "flight_delays", "data", cwd=project)
            partial = CACHE / f"partial-{os.getpid()}"
            shutil.copytree(project / "data/raw", partial)
            partial.rename(BATCHES)
    return BATCHES


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Generated projects to copy, for the tests of upgrades."""
    from ladder import Stock

    return Stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture
def ladder(stock, tmp_path: Path) -> Iterator[object]:
    """A folder to upgrade projects in; nothing may be left in the temporary folder."""
    from ladder import Ladder

    ladder = Ladder(tmp_path, stock.template)
    yield ladder
    assert not list(ladder.temporary.iterdir()), "left in the temporary folder"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_inside(project: Path, module: str, *options: str) -> None:
    """Run tests/inside/MODULE with the project's own Python and pytest."""
    options += ("-q", "-p", "no:cacheprovider", "-c", str(INSIDE / "pytest.ini"))
    run(project / ".venv/bin/python", "-m", "pytest", INSIDE / module, *options, cwd=project)
