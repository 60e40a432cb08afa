"""The model registry: find a version by alias, and the only way to load a stored model.

MLflow and skops take the types and the code that a model may load *from the model's own files*.
`load_model` does not: it goes by the allow-list of model.py and by the digest that training left in
the store, and it runs no code that lies beside the model.
"""

import hashlib
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import skops.io
import yaml
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from skops.io.exceptions import UntrustedTypesFoundException

from ..model import TRUSTED_TYPES
from . import tidy
from .column_types import Kinds
from .errors import UserError
from .params import Params

FILES = ("MLmodel", "model.skops")  # what a stored model is and does
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "scikit-learn", "skops")
SIGNATURE_TYPES = {"number": "double", "text": "string", "date": "datetime"}


# What MLflow and skops raise on bad files.
_MALFORMED = (KeyError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError)


class Loaded(NamedTuple):
    """A checked model and the kinds of the columns that its signature asks for."""

    model: Pipeline
    kinds: Kinds


def find_version(client: mlflow.MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version of the model `name` with this alias or number; None if there is none."""
    try:
        if alias.isdigit():
            return client.get_model_version(name, alias)
        return client.get_model_version_by_alias(name, alias)
    except mlflow.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def require_version(client: mlflow.MlflowClient, name: str, alias: str) -> ModelVersion:
    """`find_version`, or UserError."""
    version = find_version(client, name, alias)
    if version is None:
        raise UserError(f"no version of {name} is {alias} yet: run the step `register` first")
    return version


def save_options(model: Pipeline, kinds: Kinds, params: Params) -> dict[str, Any]:
    """How a model is stored, for MLflow's `log_model` and `save_model`.

    Every column may lack a value, for Tidy knows missing ones, and numbers are doubles, so that a
    request may hold 1 or 1.0.
    """
    columns = [ColSpec(SIGNATURE_TYPES[kind], name, required=False) for name, kind in kinds.items()]
    shape = (-1, len(model.classes_)) if hasattr(model, "classes_") else (-1,)
    outputs = Schema([TensorSpec(np.dtype(np.float64), shape)])
    return {
        "serialization_format": "skops",
        "skops_trusted_types": [*tidy.TYPES, *TRUSTED_TYPES, *params.model.trusted_types],
        "pip_requirements": [f"{name}=={version(name)}" for name in REQUIREMENTS],
        "signature": ModelSignature(inputs=Schema([*columns]), outputs=outputs),
        "pyfunc_predict_fn": "predict_proba" if hasattr(model, "classes_") else "predict",
    }


def load_model(source: Run | ModelVersion, params: Params) -> Loaded:
    """The model of a training run or a registered version.

    Raises UserError if the files are not those that training logged, are not in skops format,
    hold a type that neither model.py nor `model.trusted_types` of params.yaml names, or no model.
    """
    with tempfile.TemporaryDirectory() as folder:
        return read_model(download(source, Path(folder)), params, _uri(source))


def download(source: Run | ModelVersion, folder: Path) -> Path:
    """Where the files of a model are, once they are below this folder.

    Raises UserError if they are not those that training logged.
    """
    uri = _uri(source)
    try:
        files = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    except OSError as error:
        raise UserError(f"{uri}: its files cannot be read: {error}") from None
    tags = source.data.tags if isinstance(source, Run) else source.tags
    known = all((files / name).is_file() for name in FILES)
    if known and not is_recorded(files, tags.get("model_sha256", "")):
        raise UserError(f"{uri} is refused: its files are not those that training logged")
    return files


def _uri(source: Run | ModelVersion) -> str:
    if isinstance(source, ModelVersion):
        return f"models:/{source.name}/{source.version}"
    uri = source.data.tags.get("model_uri")
    if uri is None:
        raise UserError(f"run {source.info.run_id} has no model: name a run of the step `train`")
    return uri


def read_model(folder: Path, params: Params, uri: str | None = None) -> Loaded:
    """The model in a folder of MLflow's; `load_model` tells what is refused."""
    uri = uri or str(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{uri} is refused: it has no {missing[0]}, so it is not a skops model")
    kinds_of = {name: kind for kind, name in SIGNATURE_TYPES.items()}
    trusted = [*tidy.TYPES, *TRUSTED_TYPES, *params.model.trusted_types]
    try:
        stored = mlflow.models.Model.load(str(folder))
        if stored.flavors["sklearn"]["serialization_format"] != "skops":
            raise UserError(f"{uri} is refused: it is not stored in skops format")
        kinds = Kinds({c.name: kinds_of[c.type.name] for c in stored.signature.inputs.inputs})
        model = skops.io.load(folder / "model.skops", trusted=trusted)
    except UntrustedTypesFoundException as error:
        raise UserError(
            f"{uri} is refused: {error.args[0]}; if they are yours, add them to model.trusted_types"
        ) from None
    except (zipfile.BadZipFile, mlflow.MlflowException, *_MALFORMED) as error:
        raise UserError(f"{uri} is refused: its files cannot be read: {error}") from None
    if not isinstance(model, BaseEstimator) or not hasattr(model, "predict"):
        raise UserError(f"{uri} is refused: model.skops holds no model, but {type(model).__name__}")
    return Loaded(model, kinds)


def fingerprint(folder: Path) -> str:
    """SHA-256 over FILES, each with its name and its length."""
    total = hashlib.sha256()
    for name in FILES:
        content = (folder / name).read_bytes()
        total.update(f"{name} {len(content)}\n".encode() + content)
    return f"files:{total.hexdigest()}"


def is_recorded(folder: Path, recorded: str) -> bool:
    """Whether the files are those of a recorded fingerprint.

    One without a prefix was recorded by version 0.1.0 of the template, over the contents alone.
    """
    if recorded.startswith("files:"):
        return fingerprint(folder) == recorded
    contents = b"".join((folder / name).read_bytes() for name in FILES)
    return hashlib.sha256(contents).hexdigest() == recorded
