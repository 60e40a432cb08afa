"""Retraining: the triggers, the pipeline, the gate, then the aliases of the registry.

The step `retrain` promotes the challenger or refuses it, or does
nothing if no trigger fires; all are exit code 0, and reports/decision.md says why.
"""

import logging

from ..experiment import tracking
from ..experiment.errors import UserError
from ..experiment.markdown import plain
from ..experiment.params import ROOT, load
from ..experiment.registry import find_version
from . import incoming, lock, settings
from .decision import history, triggers

log = logging.getLogger(__name__)


def run(demand: bool = False, because: str | None = None) -> None:
    params, limits, reported = load(), settings.load(), triggers.from_monitoring(because)
    client, name = tracking.connect(), params.register_.name
    with lock.alone():
        if tracking.commit()["dirty"] == "true":
            raise UserError(
                "commit your changes first (git status; git init): a model is promoted from a commit"
            )
        folder = (ROOT / params.data.source).parent
        if limits.incoming is not None:
            incoming.fetch(limits.incoming, folder)
        state = history.state(params, limits)
        champion = find_version(client, name, "champion")
        answers = triggers.ask(demand, champion, state, params, limits, reported)
        experiment = triggers.write(answers)
        fired = [answer for answer in answers if answer.fired]
        if not fired:
            log.info("nothing to do: no trigger fired")
            history.say("nothing to do: no trigger fired", [experiment] if experiment else [])
            return
        from . import pipeline
        from .decision import promotion  # with nothing to do their imports are half of the time

        try:
            pipeline.reproduce(params)
        except pipeline.QuarantineError as error:
            history.say("quarantined: the champion stays as it is", [plain(error)])
            raise
        promotion.decide(client, state, fired, params, limits)
