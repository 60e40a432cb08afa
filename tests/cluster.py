"""A stand-in for a Kubernetes cluster: an API server for the real kubectl, and pods that are processes.

What is applied is honoured: a pod runs the entry point and has the variables of the Dockerfile, and besides
them those of its ConfigMaps, Secrets and `env`, nothing else; its image is the one of its digest; the
probes decide who is ready; a roll-out goes on only when a new pod is ready; a container that dies is
started again with its `emptyDir`. A Service sends each connection to a pod that is ready and has its labels.
A pod gets its port as an option, because all of them share this machine's address.
"""

import base64
import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from conftest import free_port
from port_forward import relay

LAST = "kubectl.kubernetes.io/last-applied-configuration"
KINDS = {
    "api/v1": ["ConfigMap", "Pod", "Secret", "Service", "ServiceAccount"],
    "apis/apps/v1": ["Deployment"],
    "apis/autoscaling/v2": ["HorizontalPodAutoscaler"],
    "apis/networking.k8s.io/v1": ["Ingress", "NetworkPolicy"],
    "apis/policy/v1": ["PodDisruptionBudget"],
}
PLURALS = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}
# `port-forward` is a protocol of its own: the pod's port, printed as kubectl does, and a relay to it.
KUBECTL = """#!/bin/sh
for word; do case $word in port-forward) exec {python} {here} "$@" ;; esac; done
exec {kubectl} "$@"
"""


def plural(kind: str) -> str:
    return PLURALS.get(kind, f"{kind.lower()}s")


class Pod:
    """A process, from what a pod's specification says."""

    numbers = itertools.count(1)

    def __init__(self, cluster: "Cluster", namespace: str, metadata: dict, spec: dict) -> None:
        self.cluster, self.namespace, self.spec = cluster, namespace, spec
        self.labels, self.name = metadata.get("labels", {}), metadata.get("name", "")
        self.name = self.name or f"service-{next(self.numbers)}"
        self.port, self.ended = free_port(), False
        self.folder = cluster.folder / f"{namespace}-{self.name}-{self.port}"
        self.folder.mkdir()
        self.log = self.folder / "log"
        self.process: subprocess.Popen | None = None
        self.start()

    def variables(self, container: dict) -> dict[str, str]:
        """Those of its ConfigMaps, Secrets and `env`; a KeyError names what is not there."""
        values: dict[str, str] = {}
        for source in container.get("envFrom", []):
            (kind, named) = next(iter(source.items()))
            name = (plural(kind.removesuffix("Ref")[0].upper() + kind.removesuffix("Ref")[1:]),)
            found = self.cluster.objects.get((*name, self.namespace, named["name"]))
            if found is None:
                if named.get("optional"):
                    continue
                raise KeyError(named["name"])
            values |= self.cluster.values(found)
        return values | {one["name"]: one["value"] for one in container.get("env", [])}

    def start(self) -> None:
        (container,) = self.spec["containers"]
        try:
            given = self.variables(container)
            root, image = self.cluster.image(container["image"])
        except KeyError as missing:
            self.log.write_text(f"it waits for {missing}")
            return
        expand = lambda text: re.sub(r"\$\((\w+)\)", lambda name: given[name[1]], text)  # noqa: E731
        arguments = [expand(text) for text in container.get("args", [])]
        own = {k: v.replace("/tmp/", f"{self.folder}/") for k, v in self.cluster.env.items()}
        env = own | image | {"TMPDIR": str(self.folder), "HOME": str(self.folder)} | given
        command = [*self.cluster.entry_point, *arguments, "--port", str(self.port)]
        with self.log.open("ab") as log:
            options: dict[str, Any] = {"cwd": root, "env": env, "stdout": log, "stderr": log}
            executable = shutil.which(command[0], path=env["PATH"])
            self.process = subprocess.Popen(
                command, executable=executable, start_new_session=True, **options
            )

    def phase(self) -> str:
        if self.process is None:
            return "Pending"
        return "Running" if self.process.poll() is None else "Failed"

    def ready(self) -> bool:
        path = self.spec["containers"][0]["readinessProbe"]["httpGet"]["path"]
        with contextlib.suppress(OSError):
            return (
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2).status
                == 200
            )
        return False

    def end(self) -> None:
        """The hook before, then SIGTERM; what has not ended after the grace period is killed."""
        self.ended = True
        if self.process is None or self.process.poll() is not None:
            return
        hook = self.spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {})
        if "command" in hook:
            subprocess.run(hook["command"], check=True)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(self.spec.get("terminationGracePeriodSeconds", 30))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Cluster:
    """The API server, its controllers, and the addresses of its services."""

    def __init__(
        self, folder: Path, dockerfile: Path, pull: Callable[[str], tuple[Path, Path]]
    ) -> None:
        self.folder, self.pull = folder, pull
        text = dockerfile.read_text().replace("\\\n", " ")
        (entry,) = re.findall(r"^ENTRYPOINT (.*)", text, re.M)
        self.entry_point = json.loads(entry)
        words = " ".join(re.findall(r"^ENV (.*)", text, re.M))
        self.env = dict(word.split("=", 1) for word in shlex.split(words))
        self.objects: dict[tuple[str, str, str], dict] = {}
        self.pods: dict[tuple[str, str], list[Pod]] = {}  # of a deployment
        self.alone: dict[tuple[str, str], Pod] = {}
        self.calls: list[str] = []
        self.versions = itertools.count(1)
        self.lock, self.closed = threading.RLock(), False
        self.stuck = "none"  # pods of a deployment with this in their image are never ready
        cluster = self

        class Handler(Api):
            def __init__(self, *words: Any) -> None:
                self.cluster = cluster
                super().__init__(*words)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        threading.Thread(target=self.restart_dead, daemon=True).start()
        self.relays: list[socketserver.ThreadingTCPServer] = []
        where = {
            "name": "there",
            "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"},
        }
        config = {"apiVersion": "v1", "kind": "Config", "clusters": [where], "users": []}
        config["contexts"] = [{"name": "there", "context": {"cluster": "there"}}]
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))

    def image(self, name: str) -> tuple[Path, dict[str, str]]:
        """The folder of an image, and where its programs are; KeyError if there is none of this digest."""
        root, binaries = self.pull(name.partition("@")[2])
        path = os.pathsep.join([str(binaries), "/usr/bin", "/bin"])
        site = {"PYTHONPATH": str(root / "site"), "RELEASE_COMMIT": "none"}
        return root, {"PATH": path} | site

    @staticmethod
    def values(found: dict) -> dict[str, str]:
        if found["kind"] == "Secret":
            data = {k: base64.b64decode(v).decode() for k, v in found.get("data", {}).items()}
            return data | found.get("stringData", {})
        return found.get("data", {})

    def listen(self, namespace: str, port: int) -> None:
        """Relay the connections to a port to the ready pods of the service `service`."""
        cluster = self

        class Relay(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                pods = cluster.ready_pods(namespace)
                if pods:
                    relay(self.request, pods[-1].port)

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        server = socketserver.ThreadingTCPServer(("127.0.0.1", port), Relay)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.relays.append(server)

    def ready_pods(self, namespace: str) -> list[Pod]:
        service = self.objects.get(("services", namespace, "service"))
        if service is None:
            return []
        selector = service["spec"]["selector"].items()
        all_pods = [*self.pods.get((namespace, "service"), []), *self.alone.values()]
        mine = [pod for pod in all_pods if pod.namespace == namespace and not pod.ended]
        return [pod for pod in mine if selector <= pod.labels.items() and pod.ready()]

    def put(self, key: tuple[str, str, str], content: dict) -> dict:
        """Store an object, and let the controllers act."""
        with self.lock:
            before = self.objects.get(key)
            content["metadata"] |= {
                "namespace": key[1],
                "uid": before["metadata"]["uid"] if before else f"uid-{next(self.versions)}",
                "resourceVersion": str(next(self.versions)),
                "generation": before["metadata"]["generation"] + 1 if before else 1,
            }
            self.objects[key] = content
            if key[0] == "deployments":
                content["spec"].setdefault("replicas", 1)
                content["status"] = {"observedGeneration": 0}
                if before and before["spec"]["template"] == content["spec"]["template"]:
                    self.settled(key)
                else:
                    threading.Thread(target=self.roll_out, args=(key, content), daemon=True).start()
            elif key[0] == "pods":
                self.alone[key[1:]] = Pod(self, key[1], content["metadata"], content["spec"])
            return content

    def roll_out(self, key: tuple[str, str, str], content: dict) -> None:
        template = content["spec"]["template"]
        pod = Pod(self, key[1], template["metadata"], template["spec"])
        with self.lock:
            pods = self.pods.setdefault(key[1:], [])
            pods.append(pod)
        while self.stuck in template["spec"]["containers"][0]["image"] or not pod.ready():
            if self.closed or self.objects.get(key) is not content:
                pod.end()  # another roll-out goes on
                with contextlib.suppress(ValueError):
                    pods.remove(pod)
                return
            time.sleep(0.1)
        old = [other for other in pods if other is not pod]
        for other in old:
            other.ended = True  # out of the service first
        for other in old:
            other.end()
            pods.remove(other)
        self.settled(key)

    def settled(self, key: tuple[str, str, str]) -> None:
        with self.lock:
            content = self.objects[key]
            ready = dict.fromkeys(
                ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1
            )
            content["status"] = {"observedGeneration": content["metadata"]["generation"], **ready}
            content["metadata"]["resourceVersion"] = str(next(self.versions))

    def delete(self, key: tuple[str, str, str]) -> dict:
        with self.lock:
            found = self.objects.pop(key)
            gone = self.pods.pop(key[1:], []) if key[0] == "deployments" else []
            alone = self.alone.pop(key[1:], None) if key[0] == "pods" else None
            gone += [alone] if alone else []
        for pod in gone:
            pod.end()
        return found

    def restart_dead(self) -> None:
        while not self.closed:
            for pod in [pod for pods in self.pods.values() for pod in pods]:
                if not pod.ended and pod.phase() != "Running":
                    pod.start()
            time.sleep(0.5)

    def close(self) -> None:
        self.closed = True
        for server in (self.server, *self.relays):
            server.shutdown()
            server.server_close()
        for pod in [*self.alone.values(), *(pod for pods in self.pods.values() for pod in pods)]:
            pod.spec["containers"][0].pop("lifecycle", None)
            pod.end()


class Api(BaseHTTPRequestHandler):
    """The part of the API that kubectl asks for."""

    cluster: Cluster
    protocol_version = "HTTP/1.1"

    def answer(self, content: Any, status: int = 200, kind: str = "application/json") -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass

    def refuse(self, status: int, reason: str, message: str) -> None:
        about = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
        self.answer(about | {"reason": reason, "message": message}, status)

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        place = re.fullmatch(
            r"/(api/v1|apis/[\w.]+/v\d)/namespaces/([\w-]+)/(\w+)(?:/([\w.-]+))?(?:/(\w+))?",
            parts.path,
        )
        self.cluster.calls.append(f"{self.command} {self.path}")
        if place is None:
            self.discover(parts.path)
            return
        _, namespace, resource, name, part = place.groups()
        key = (resource, namespace, name or "")
        if part == "log":
            pod = self.cluster.alone.get((namespace, name))
            lines = pod.log.read_text().splitlines() if pod else []
            tail = lines[-int(query.get("tailLines", 10)) :]
            self.answer("\n".join(tail), kind="text/plain")
        elif self.command == "POST":
            content = json.loads(body)
            self.answer(
                self.cluster.put((resource, namespace, content["metadata"]["name"]), content), 201
            )
        elif name is None:
            self.listed(resource, namespace, query)
        elif key not in self.cluster.objects:
            self.refuse(404, "NotFound", f'{resource} "{name}" not found')
        elif self.command == "PATCH":
            # What kubectl sends it has worked out from this text, which is the whole; it is there if it differs.
            changed = json.loads(body).get("metadata", {}).get("annotations", {})
            annotations = self.cluster.objects[key]["metadata"]["annotations"]
            content = json.loads(changed.get(LAST) or annotations[LAST])
            applied = content["metadata"].get("annotations", {}) if LAST in changed else annotations
            content["metadata"]["annotations"] = applied | changed
            self.answer(self.cluster.put(key, content))
        elif self.command == "DELETE":
            self.answer(self.cluster.delete(key))
        else:
            self.answer(self.shown(key))

    do_GET = do_POST = do_PATCH = do_DELETE = handle_request  # noqa: N815

    def shown(self, key: tuple[str, str, str]) -> dict:
        content = self.cluster.objects[key]
        if key[0] == "pods":
            content = content | {"status": {"phase": self.cluster.alone[key[1:]].phase()}}
        return content

    def listed(self, resource: str, namespace: str, query: dict[str, str]) -> None:
        keys = [key for key in [*self.cluster.objects] if key[:2] == (resource, namespace)]
        for rule in filter(None, query.get("fieldSelector", "").split(",")):
            _, unequal, name = rule.replace("=", "==", 1).partition("!==" if "!" in rule else "==")
            keys = [key for key in keys if (key[2] != name) is ("!" in unequal)]
        for rule in filter(None, query.get("labelSelector", "").split(",")):
            label, _, value = rule.partition("=")
            labels = lambda key: self.cluster.objects[key]["metadata"].get("labels", {})  # noqa: E731
            keys = [key for key in keys if labels(key).get(label) == value]
        if query.get("watch"):
            self.watch(keys)
            return
        version = {"resourceVersion": str(next(self.cluster.versions))}
        items = [self.shown(key) for key in keys]
        self.answer({"kind": "List", "apiVersion": "v1", "metadata": version, "items": items})

    def watch(self, keys: list[tuple[str, str, str]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        last: dict[tuple[str, str, str], str] = {}
        with contextlib.suppress(OSError):
            while not self.cluster.closed:
                for key in keys:
                    found = self.cluster.objects.get(key)
                    if found and last.get(key) != found["metadata"]["resourceVersion"]:
                        last[key] = found["metadata"]["resourceVersion"]
                        event = {"type": "MODIFIED", "object": self.shown(key)}
                        self.wfile.write(json.dumps(event).encode() + b"\n")
                        self.wfile.flush()
                time.sleep(0.1)
        self.close_connection = True

    def discover(self, path: str) -> None:
        path = path.strip("/")
        groups = [place for place in KINDS if place.startswith("apis/")]
        if path == "version":
            self.answer({"major": "1", "minor": "32", "gitVersion": "v1.32.0"})
        elif path == "api":
            self.answer({"kind": "APIVersions", "versions": ["v1"]})
        elif path == "apis":
            found = []
            for place in groups:
                _, group, version = place.split("/")
                one = {"groupVersion": f"{group}/{version}", "version": version}
                found.append({"name": group, "versions": [one], "preferredVersion": one})
            self.answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": found})
        elif path in KINDS:
            verbs = ["create", "delete", "get", "list", "patch", "watch"]
            resources = [
                {"name": plural(kind), "singularName": kind.lower(), "namespaced": True}
                | {"kind": kind, "verbs": verbs}
                for kind in KINDS[path]
            ]
            about = {"kind": "APIResourceList", "groupVersion": path.split("/", 1)[1]}
            self.answer(about | {"resources": resources})
        elif path == "openapi/v3":
            places = {
                place: {"serverRelativeURL": f"/openapi/v3/{place}?hash=1"} for place in KINDS
            }
            self.answer({"paths": places})
        elif path.startswith("openapi/v3/"):
            self.answer(self.openapi(path.removeprefix("openapi/v3/")))
        else:
            self.refuse(404, "NotFound", f"nothing is at {path}")

    @staticmethod
    def openapi(place: str) -> dict:
        """That the server checks fields itself, for which kubectl looks."""
        *_, version = place.split("/")
        group = "" if place == "api/v1" else place.split("/")[1]
        check = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
        paths = {}
        for kind in KINDS[place]:
            about = {"group": group, "version": version, "kind": kind}
            patch = {
                "parameters": [check],
                "x-kubernetes-group-version-kind": about,
                "responses": {},
            }
            paths[f"/{place}/namespaces/{{namespace}}/{plural(kind)}/{{name}}"] = {"patch": patch}
        return {"openapi": "3.0.0", "info": {"title": "", "version": "1"}, "paths": paths}


def write_kubectl(folder: Path) -> None:
    """A kubectl for the PATH: the real one, but for `port-forward`."""
    here = Path(__file__).with_name("port_forward.py")
    text = KUBECTL.format(python=sys.executable, here=here, kubectl=shutil.which("kubectl"))
    (folder / "kubectl").write_text(text)
    (folder / "kubectl").chmod(0o755)
