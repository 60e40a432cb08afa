"""Monitoring: what an environment predicts, how good it turns out to be, and whether that asks for action.

The step `monitor --env production` joins the prediction log with the labels that have come,
and writes reports/monitor.html to look at, and .json and .md. A degradation sets off continuous
training, once: `--retrain` does that here, `--claim` and `--confirm` are for monitor.yml.
"""

import json
import logging
import math
import re
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sql

from ...continuous_training import settings as training
from ...continuous_training.decision import history
from ...continuous_training.decision.triggers import EXPERIMENT
from ...experiment.errors import UserError
from ...experiment.params import ROOT, Params, load
from .. import settings
from ..release import releases
from ..service.prediction_log import PredictionTable
from . import dashboard
from .alert_rules import conditions
from .alerts import CHANNELS, Alert, Alerts, Key
from .collect import Found, look

CONFIRMED = re.compile(rf"({'|'.join(CHANNELS)}):(\d+(?:\.\d+)?)")

log = logging.getLogger(__name__)


def decide(
    found: Found, alerts: Alerts, claim: set[str], params: Params, limits: settings.Monitor
) -> list[Key]:
    """Open and close alerts, and add them to what was found; returns those that ask for retraining.

    Those for the channels in `claim` are the caller's to hand over, and nobody else's.
    """
    wanted, before = conditions(found, limits), {alert.key for alert in alerts.open()}
    names = {"degradation"} | ({"drift"} if limits.drift == "retrain" else set())
    asking = [
        key
        for key, (holds, _) in wanted.items()
        if key.name in names and (holds or (holds is None and key in before))
    ]
    rules = training.load()
    most, experiment = rules.triggers.refusals, None
    if asking and history.refusals(history.recipe(params, rules), most) == most:
        experiment = EXPERIMENT.format(count=most)
        wanted[Key("experiment", asking[0].version)] = (True, experiment)
        asking = []
    new = alerts.update(wanted)
    opened = {alert.key: alert for alert in alerts.open()}
    for alert in opened.values():
        level = logging.WARNING if alert.key in new else logging.INFO
        log.log(level, "alert: %s: %s", alert.key.name, alert.message)
    alerts.post(list(opened.values()))
    asking = [key for key in alerts.untold("retrain") if key in asking]
    if "retrain" in claim:
        asking = alerts.claim("retrain", asking)
    told = alerts.claim("issue", alerts.untold("issue")) if "issue" in claim else []
    found["alerts"] = [_shown(alert) | {"new": alert.key in new} for alert in opened.values()]
    found["retrain"] = None
    if asking:
        first = min(asking)  # a degradation before a drift
        found["retrain"] = {"name": first.name, "reason": opened[first].message}
    found["experiment"] = experiment
    found["claim"] = str(alerts.now)
    found["issues"] = [_shown(opened[key]) for key in told if key in opened]
    return asking


def _shown(alert: Alert) -> dict[str, Any]:
    since = datetime.fromtimestamp(alert.opened, UTC).isoformat(timespec="seconds")
    version, segment = alert.key.version or None, alert.key.segment or None
    about = {"name": alert.key.name, "version": version, "segment": segment}
    return about | {"message": alert.message, "since": since}


def plain(value: Any) -> Any:
    """For JSON: numbers that are undefined are null."""
    if isinstance(value, dict):
        return {key: plain(its) for key, its in value.items()}
    if isinstance(value, list | tuple):
        return [plain(its) for its in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(found: Found) -> None:
    """Write reports/monitor.json, .md and .html."""
    folder = ROOT / "reports"
    folder.mkdir(exist_ok=True)
    text = json.dumps(plain(found), indent=2) + "\n"
    (folder / "monitor.json").write_text(text, encoding="utf-8")
    (folder / "monitor.md").write_text(dashboard.markdown(found), encoding="utf-8")
    (folder / "monitor.html").write_text(dashboard.page(found), encoding="utf-8")


def run(
    env: str = "production",
    retrain: bool = False,
    claim: bool = False,
    confirm: list[str] | None = None,
) -> None:
    params, limits, now = load(), settings.load(), time.time()
    settings.before(env, limits)
    table = PredictionTable(releases.prediction_log_url())
    try:
        table.create()
        alerts = Alerts(table.engine, env, now)
        for word in confirm or ():
            if not (told := CONFIRMED.fullmatch(word)):
                raise UserError(f"--confirm takes CHANNEL:CLAIM, not {word}")
            count = alerts.confirm(told[1], float(told[2]))
            log.info("%s: %d alerts are handed over", told[1], count)
        if confirm:
            return
        found = look(env, table, now, params, limits, training.load())
        hand_over = {"retrain", "issue"} if claim else {"retrain"} if retrain else set()
        asking = decide(found, alerts, hand_over, params, limits.monitor)
    except sql.exc.SQLAlchemyError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"PREDICTION_LOG_URL: the database cannot be used: {reason}") from None
    write(found)
    for note in found["notes"]:
        log.warning("%s", note)
    log.info("%s: see reports/monitor.html", dashboard.state(found))
    if found["retrain"] is None:
        return
    because = f"{found['retrain']['name']}: {found['retrain']['reason']}"
    if not retrain:
        log.warning("retraining is due: run the step with --retrain (%s)", because)
        return
    from ...continuous_training import retrain as again

    try:
        again.run(because=because)
    except BaseException:
        alerts.release("retrain", asking)
        raise
    alerts.confirm("retrain", alerts.now)
