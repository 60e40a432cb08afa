"""Fetch the batches that have arrived: from `incoming` of continuous_training.yaml to data/raw.

data/incoming.json, which is in git, keeps what has been seen there. A file is fetched if its source has
changed since, and its content too; one that was quarantined stays away until its source has another
content. `retrain` does so first.
"""

import hashlib
import json
import logging
import os
from pathlib import Path

import fsspec

from ..experiment import dataset
from ..experiment.errors import UserError
from ..experiment.params import ROOT, parse

RECORD = "data/incoming.json"  # name -> `source`, `sha256`, `quarantined`

log = logging.getLogger(__name__)


def fetch(incoming: str, folder: Path) -> list[str]:
    """Copy what is new from a glob of fsspec's (a path, s3://, gs://, az://); returns the names."""
    record, fetched = _read(), []
    try:
        system, pattern = fsspec.core.url_to_fs(incoming if "://" in incoming else ROOT / incoming)
        files = system.glob(pattern, detail=True)
        for path, details in sorted(files.items()):
            name = Path(path).name
            here, source, seen = folder / name, _state(details), record.get(name, {})
            if seen.get("source") == source and (seen["quarantined"] or here.exists()):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder.parent / f".{name}.partial"
            system.get_file(path, str(partial))
            content = _sha256(partial)
            bad = seen.get("sha256") == content and seen["quarantined"]
            if bad or (here.exists() and _sha256(here) == content):
                partial.unlink()
            else:
                os.replace(partial, here)
                fetched.append(name)
            record[name] = {"source": source, "sha256": content, "quarantined": bad}
    except (OSError, ImportError, ValueError) as error:
        raise UserError(f"continuous_training.yaml: incoming: {incoming}: {error}") from None
    finally:
        _write(record)
    if not files:
        log.warning("incoming: no file matches %s", incoming)
    if fetched:
        log.info("fetched %s", ", ".join(fetched))
    return fetched


def set_aside(name: str) -> None:
    """Remember that a batch was quarantined, so that no other machine fetches it again."""
    record = _read()
    if name in record:
        record[name]["quarantined"] = True
        _write(record)


def _state(details: dict) -> str:
    """A digest of what the store tells about a file: its size, time, ETag; it reads no content."""
    known = {key: str(value) for key, value in details.items() if key not in ("name", "Key")}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    return dataset.digests([path])[path.name]


def _read() -> dict[str, dict]:
    path = ROOT / RECORD
    return parse(path) if path.exists() else {}


def _write(record: dict[str, dict]) -> None:
    if record:
        partial = (ROOT / RECORD).with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(partial, ROOT / RECORD)
