"""Artifacts that move with the folder: MLflow's `project:/...` is a path from where its database is.

MLflow finds this class by the entry point in pyproject.toml, while it is itself being imported: so
it stands alone here.
"""

from pathlib import Path

from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from .params import ROOT

DATABASE = "sqlite:///"


class ProjectArtifacts(LocalArtifactRepository):
    """MLflow's local store; the database holds no absolute path."""

    def __init__(self, artifact_uri: str, tracking_uri=None, registry_uri=None) -> None:
        from mlflow import get_tracking_uri

        store = tracking_uri or get_tracking_uri()
        root = Path(store.removeprefix(DATABASE)).parent if store.startswith(DATABASE) else ROOT
        path = root.resolve() / artifact_uri.removeprefix("project:").lstrip("/")
        super().__init__(path.as_uri(), tracking_uri, registry_uri)
