"""Bring the online feature store up to date with all batches, whether `data.through` reaches them or not.

The step `materialize` writes to the database of FEATURE_STORE_URL
(postgresql://... or sqlite:///...), else to data/online.db. Only what is new is written.
"""

import logging

import sqlalchemy

from ...experiment import floors
from ...experiment.errors import UserError
from ...experiment.params import load
from .online import OnlineStore

log = logging.getLogger(__name__)


def run() -> None:
    store = floors.feature_store(load().data)
    if store is None:
        log.info("nothing to do: feature_views.py has no views for such data")
        return
    try:
        written = OnlineStore().materialize(store)
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise UserError(f"FEATURE_STORE_URL: {reason}") from None
    for name, rows in written.items():
        log.info("%s: %s rows written", name, f"{rows:,}")
