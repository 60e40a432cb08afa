"""Fetch the batches that have arrived: from `incoming` of continuous_training.yaml to data/raw.

A file is fetched if data/raw has none of its name and size; one of that name and size which is in
quarantine is not. `retrain` does so first.
"""

import logging
import os
from pathlib import Path

import fsspec

from ..experiment.errors import UserError
from ..experiment.params import ROOT

log = logging.getLogger(__name__)


def fetch(incoming: str, folder: Path, quarantine: Path) -> list[str]:
    """Copy what is new from a glob of fsspec's (a path, s3://, gs://, az://); returns the names."""
    fetched = []
    try:
        system, pattern = fsspec.core.url_to_fs(incoming if "://" in incoming else ROOT / incoming)
        files = system.glob(pattern, detail=True)
        for path, details in sorted(files.items()):
            name = Path(path).name
            if any(_is(place / name, details["size"]) for place in (folder, quarantine)):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder.parent / f".{name}.partial"
            system.get_file(path, str(partial))
            os.replace(partial, folder / name)
            fetched.append(name)
    except (OSError, ImportError, ValueError) as error:
        raise UserError(f"continuous_training.yaml: incoming: {incoming}: {error}") from None
    if not files:
        log.warning("incoming: no file matches %s", incoming)
    if fetched:
        log.info("fetched %s", ", ".join(fetched))
    return fetched


def _is(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size
