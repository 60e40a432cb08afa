"""The container image, built from the Dockerfile and started, without a Docker engine.

buildah builds it on a Debian that mmdebstrap makes; a chroot is all the isolation that it takes. The
service in it answers with a model of an MLflow server.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import CLEAN, IDENTITY, attach, free_port, generate, run
from test_stores import mlflow_server, postgres, small

pytestmark = [pytest.mark.slow, pytest.mark.nightly]
TOOLS = ("buildah", "crun", "mmdebstrap")
CERTIFICATES = "/etc/ssl/certs"
PACKAGES = "python3,python3-venv,ca-certificates"
HERE = "http://127.0.0.1"


class Images:
    """buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = ["buildah", "--storage-driver", "vfs", "--root", str(folder / "root")]
        self.base += ["--runroot", str(folder / "run")]

    def __call__(self, *words: str | Path) -> str:
        return run(*self.base, *words, cwd=self.folder).stdout.strip()

    def debian(self) -> str:
        """A base image with Python."""
        archive = self.folder / "debian.tar"
        release = Path("/etc/os-release").read_text().split("VERSION_CODENAME=")[1].split()[0]
        make = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", release]
        run(*make, archive, cwd=self.folder)
        container = self("from", "scratch")
        self("add", container, archive, "/")
        self("commit", "--quiet", container, "localhost/debian:latest")
        self("rm", container)
        archive.unlink()
        return "localhost/debian:latest"


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"as root, with {', '.join(TOOLS)} (apt-get install)")
    images = Images(tmp_path / "images")
    images.folder.mkdir()
    yield images
    images("rm", "--all")
    images("rmi", "--all", "--force")


@contextlib.contextmanager
def started(images: Images, image: str, *command: str, **env: str) -> Iterator[subprocess.Popen]:
    """The image's own command in a container, as the user that it names."""
    container = images("from", image)
    words = [*images.base, "run", "--isolation", "chroot"]
    words += [w for key, value in env.items() for w in ("--env", f"{key}={value}")]
    process = subprocess.Popen([*words, container, "--", *command], env=CLEAN)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def test_the_image_serves(images, environment, tmp_path):
    project = small(attach(generate(tmp_path, maturity_level="2"), environment))
    commit = run("git", "rev-parse", "HEAD", cwd=project).stdout.strip()
    build = ["bud", "--quiet", "--isolation", "chroot", "--layers=false", "--pull-never"]
    build += ["-t", "localhost/service:latest"]
    build += ["--build-arg", f"BASE={images.debian()}", "--build-arg", f"COMMIT={commit}"]
    build += [
        "--build-arg",
        f"SSL_CERT_FILE={CERTIFICATES}/ca-certificates.crt",
        "-v",
        f"{CERTIFICATES}:{CERTIFICATES}:ro",
    ]
    images(*build, project)
    about = json.loads(images("inspect", "--type", "image", "localhost/service:latest"))["OCIv1"]
    assert about["config"]["User"] == "10001:10001"
    assert about["config"]["Labels"]["org.opencontainers.image.revision"] == commit
    secrets = [name for name in about["config"]["Env"] if "TOKEN" in name or "PASSWORD" in name]
    assert not secrets
    command = [*about["config"]["Entrypoint"]]
    port = free_port()
    with (
        postgres() as database,
        mlflow_server(tmp_path, environment, database) as uri,
    ):
        for words in (["train"], ["evaluate"], ["register", "--run", "last"]):
            step = [project / ".venv/bin/python", "-m", "flight_delays", *words]
            run(*step, cwd=project, MLFLOW_TRACKING_URI=uri, **IDENTITY)
        alias = f"{uri}/api/2.0/mlflow/registered-models/alias"
        given = {"name": "flight-delays", "alias": "dev", "version": "1"}
        httpx.post(alias, json=given).raise_for_status()
        options = ("--env", "dev", "--port", str(port))
        with started(
            images, "localhost/service:latest", *command, *options, MLFLOW_TRACKING_URI=uri
        ) as process:
            until = time.monotonic() + 60
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    ready = httpx.get(f"{HERE}:{port}/ready").raise_for_status().json()
                    break
                assert time.monotonic() < until
                assert process.poll() is None, "the container has ended"
                time.sleep(0.2)
            assert (ready["version"], ready["code"]) == (1, commit)
            answer = httpx.post(f"{HERE}:{port}/predict", json={"rows": [{"carrier": "UA"}]})
            assert answer.status_code == 200
            assert sum(answer.json()["predictions"][0]) == pytest.approx(1)
            around = Path(f"/proc/{ready['parent']}/task/{ready['parent']}/children")
            owner = os.stat(f"/proc/{around.read_text().split()[0]}").st_uid
            assert owner == 10001
