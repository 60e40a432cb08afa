"""The model registry: find a version by alias, and the only way to load a stored model.

MLflow and skops take the types and the code that a model may load *from the model's own files*.
`load_model` does not: it goes by the allow-list of model.py and by the digest that training left in
the store, and it runs no code that lies beside the model.
"""

import hashlib
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import mlflow
import skops.io
import yaml
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from sklearn.pipeline import Pipeline
from skops.io.exceptions import UntrustedTypesFoundException

from .errors import UserError
from .features import Kinds
from .model import TRUSTED_TYPES
from .params import Params

SIGNATURE_TYPES = {"number": "double", "text": "string", "date": "datetime"}
FILES = ("MLmodel", "model.skops")  # what a stored model is and does


class Loaded(NamedTuple):
    """A checked model and the kinds of the columns that its signature asks for."""

    model: Pipeline
    kinds: Kinds


def find_version(client: mlflow.MlflowClient, name: str, version: str) -> ModelVersion | None:
    """The version of the model `name` with this alias or number; None if there is none."""
    try:
        if version.isdigit():
            return client.get_model_version(name, version)
        return client.get_model_version_by_alias(name, version)
    except mlflow.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def require_version(client: mlflow.MlflowClient, name: str, version: str) -> ModelVersion:
    """`find_version`, or UserError."""
    found = find_version(client, name, version)
    if found is None:
        raise UserError(f"no version of {name} is {version} yet: run the step `register` first")
    return found


def load_model(source: Run | ModelVersion, params: Params, folder: Path | None = None) -> Loaded:
    """The model of a training run or a registered version; its files stay in `folder`, if given.

    Raises UserError if the files are not those that training logged, are not in skops format, or
    hold a type that neither model.py nor `model.trusted_types` of params.yaml names.
    """
    if isinstance(source, Run):
        uri, tags = source.data.tags.get("model_uri"), source.data.tags
    else:
        uri, tags = f"models:/{source.name}/{source.version}", source.tags
    if uri is None:
        raise UserError(f"run {source.info.run_id} has no model: name a run of the step `train`")
    with tempfile.TemporaryDirectory() as temporary:
        target = folder or Path(temporary)
        try:
            local = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(target)))
        except OSError as error:
            raise UserError(f"{uri}: its files cannot be read: {error}") from None
        return _read(uri, local, tags.get("model_sha256"), params)


def _read(uri: str, folder: Path, expected: str | None, params: Params) -> Loaded:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{uri} is refused: it has no {missing[0]}, so it is not a skops model")
    if fingerprint(folder) != expected:
        raise UserError(f"{uri} is refused: its files are not those that training logged")
    stored = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    if stored["flavors"]["sklearn"].get("serialization_format") != "skops":
        raise UserError(f"{uri} is refused: it is not stored in skops format")
    trusted = [*TRUSTED_TYPES, *params.model.trusted_types]
    try:
        model = skops.io.load(folder / "model.skops", trusted=trusted)
    except UntrustedTypesFoundException as error:
        raise UserError(
            f"{uri} is refused: {error.args[0]}; if they are yours, add them to model.trusted_types"
        ) from None
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{uri} is refused: model.skops cannot be read: {error}") from None
    kinds_of = {name: kind for kind, name in SIGNATURE_TYPES.items()}
    signature = mlflow.models.Model.load(str(folder)).signature
    return Loaded(model, Kinds({c.name: kinds_of[c.type.name] for c in signature.inputs.inputs}))


def fingerprint(folder: Path) -> str:
    """SHA-256 over FILES."""
    total = hashlib.sha256()
    for name in FILES:
        total.update((folder / name).read_bytes())
    return total.hexdigest()
