"""`make audit` as ci.yml calls it, against advisories of advisories.json, which do not change."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import free_port, generate, run
from packaging.version import Version

ADVISORIES = json.loads((Path(__file__).parent / "advisories.json").read_text(encoding="utf-8"))


def affects(advisory: dict, name: str, version: str) -> bool:
    """Whether an advisory is about this version: between `introduced` and `fixed` of a range."""
    for affected in advisory["affected"]:
        if affected["package"] == {"ecosystem": "PyPI", "name": name}:
            for span in affected["ranges"]:
                events = {key: value for event in span["events"] for key, value in event.items()}
                first, fixed = Version(events["introduced"]), Version(events["fixed"])
                if first <= Version(version) < fixed:
                    return True
    return False


class Advisories(BaseHTTPRequestHandler):
    """Answers `POST /v1/query` as OSV does."""

    asked: list[tuple[str, str]]

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name, version = query["package"]["name"], query["version"]
        self.asked.append((name, version))
        found = [advisory for advisory in ADVISORIES if affects(advisory, name, version)]
        body = json.dumps({"vulns": found} if found else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def source() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The address of a source of advisories, and what it has been asked for."""
    asked: list[tuple[str, str]] = []
    handler = type("Handler", (Advisories,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_the_audit_finds_what_is_known(source, environment, tmp_path):
    """It asks for every pin of the image; what is affected, or a source that is away, is a failure."""
    project = generate(tmp_path, maturity_level="2")
    (project / ".venv").symlink_to(environment)
    url, asked = source
    pins = project / "requirements/service.txt"
    text = pins.read_text(encoding="utf-8")

    def audit(where: str = url, check: bool = False):
        options = f"--vulnerability-service osv --osv-url {where}"
        return run("make", "audit", f"AUDIT={options}", cwd=project, check=check)

    done = audit(check=True)
    assert "No known vulnerabilities found" in done.stdout + done.stderr
    pinned = re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)( ;)?", text, re.M)  # ; where, of some
    assert {(name, version) for name, version, where in pinned if not where} <= set(asked)
    assert set(asked) <= {(name, version) for name, version, _ in pinned}
    old, count = re.subn(r"^starlette==\S+", "starlette==0.39.2", text, flags=re.M)
    assert count == 1
    pins.write_text(old, encoding="utf-8")
    done = audit()
    assert done.returncode
    found = re.search(r"^starlette +0\.39\.2 +CVE-2024-47874 +0\.40\.0", done.stdout, re.M)
    assert found, done.stdout
    pins.write_text(text, encoding="utf-8")
    assert audit(f"http://127.0.0.1:{free_port()}/v1/query").returncode
