"""Rollback: the champion before this one is the champion again.

The step `rollback` goes back one promotion, and one more when it is
called again. The version to go back to must load, before any alias moves.
"""

import logging

from ...experiment import tracking
from ...experiment.errors import UserError
from ...experiment.params import Params, load
from ...experiment.registry import find_version, load_model, require_version
from ..lock import alone

log = logging.getLogger(__name__)


def run() -> None:
    params = load()
    with alone():
        _roll_back(params)


def _roll_back(params: Params) -> None:
    client, name = tracking.connect(), params.register_.name
    champion = require_version(client, name, "champion")
    before = find_version(client, name, champion.tags.get("previous_version", "none"))
    if before is None:
        raise UserError(f"{name} version {champion.version} is the first: there is none before it")
    load_model(before, params)
    with tracking.decision(f"rolled back to version {before.version}") as run_id:
        client.set_tag(run_id, "decision", "rolled back")
        client.set_tag(run_id, "version", str(before.version))
        client.set_model_version_tag(name, champion.version, "rolled_back", "true")
        earlier = find_version(client, name, before.tags.get("previous_version", "none"))
        if earlier is not None:
            client.set_registered_model_alias(name, "previous", earlier.version)
        client.set_registered_model_alias(name, "champion", before.version)
        if earlier is None:
            client.delete_registered_model_alias(name, "previous")
    log.info(
        "%s version %s is the champion again (it was %s)", name, before.version, champion.version
    )
