"""Artifacts that move with the folder: MLflow's `project:/...` is a path from the project's root.

MLflow finds this class by the entry point in pyproject.toml, while it is itself being imported: so
it stands alone here.
"""

from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from .params import HOME


class ProjectArtifacts(LocalArtifactRepository):
    """MLflow's local store; the database holds no absolute path."""

    def __init__(self, artifact_uri: str, tracking_uri=None, registry_uri=None) -> None:
        path = HOME / artifact_uri.removeprefix("project:").lstrip("/")
        super().__init__(path.as_uri(), tracking_uri, registry_uri)
