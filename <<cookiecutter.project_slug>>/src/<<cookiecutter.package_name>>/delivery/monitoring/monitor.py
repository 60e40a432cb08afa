"""Monitoring: what an environment predicts, how good it turns out to be, and whether that asks for action.

The step `monitor --env production` joins the prediction log with the labels that have come,
and writes reports/monitor.html to look at, and .json and .md. A degradation asks for retraining until
the gate has decided about the present data and recipe: `--retrain` does it here, monitor.yml on GitHub.
"""

import logging
import time

import sqlalchemy as sql

from ...continuous_training import settings as training
from ...continuous_training.decision import history
from ...continuous_training.decision.triggers import EXPERIMENT
from ...experiment import dataset, reports, tracking
from ...experiment.errors import UserError
from ...experiment.params import load
from ...experiment.registry import find_version
from .. import settings
from ..release import releases
from ..service.prediction_log import PredictionTable
from . import dashboard
from .alert_rules import conditions
from .alerts import AlertKey, AlertTable
from .collect import Config, EnvironmentReport, observe_environment

log = logging.getLogger(__name__)


def update_alerts(report: EnvironmentReport, alerts: AlertTable, config: Config) -> None:
    """Open and close alerts, send the new ones to the webhook, and add to the report what is open.

    Adds `alerts`; `retrain`, the name and the reason of an alert that asks for retraining; and
    `experiment`, why a new experiment is needed instead. Without a reason these two are None.
    """
    params, rules = config.params, config.training
    limits = config.delivery.monitor
    content = report.content
    current = conditions(content, limits)
    before = {alert.key for alert in alerts.open()}
    retraining = {"degradation"} | ({"drift"} if limits.drift == "retrain" else set())
    asking = [
        key
        for key, (holds, _) in current.items()
        if key.name in retraining and (holds or (holds is None and key in before))
    ]
    refusals = rules.triggers.refusals
    experiment = None
    if asking and history.refusals(history.recipe(params, rules), refusals) == refusals:
        experiment = EXPERIMENT.format(count=refusals)
        current[AlertKey("experiment", asking[0].version)] = (True, experiment)
    opened = alerts.update(current)
    alerts.post()
    messages = {}
    content["alerts"] = []
    for alert in alerts.open():
        new = alert.key in opened
        level = logging.WARNING if new else logging.INFO
        log.log(level, "alert: %s: %s", alert.key.name, alert.message)
        messages[alert.key] = alert.message
        content["alerts"].append(alert.content() | {"new": new})
    content["experiment"] = experiment
    content["retrain"] = None
    if asking and not experiment:
        first = min(asking)  # a degradation before a drift
        waits = _waiting(config)
        if waits:
            content["notes"].append(f"{first.name}: {waits}")
        else:
            content["retrain"] = {"name": first.name, "reason": messages[first]}


def _waiting(config: Config) -> str | None:
    """Why retraining would learn nothing from the rows that were served; None if it would."""
    left_out = dataset.left_out(config.params.data)
    if left_out:
        through = f"params.yaml: data.through: {config.params.data.through}"
        return f"retraining waits, for {through} leaves out {', '.join(left_out)} (null: use all)"
    state = history.state(config.params, config.training)
    champion = find_version(tracking.connect(), config.params.register_.name, "champion")
    if history.decided(state, champion):
        return (
            "retraining waits for new data: the gate has decided about the present data and recipe"
        )
    return None


def run(env: str = "production", retrain: bool = False) -> None:
    config = Config(load(), settings.load(), training.load())
    settings.before(env, config.delivery)
    table = PredictionTable(releases.prediction_log_url())
    try:
        table.create()
        now = time.time()
        report = observe_environment(env, table, now, config)
        update_alerts(report, AlertTable(table.engine, env, now), config)
    except sql.exc.SQLAlchemyError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"PREDICTION_LOG_URL: the database cannot be used: {reason}") from None
    content = report.content
    reports.write_json("monitor.json", content)
    reports.write("monitor.md", dashboard.markdown(content))
    reports.write("monitor.html", dashboard.page(report))
    for note in content["notes"]:
        log.warning("%s", note)
    log.info("%s: see reports/monitor.html", dashboard.headline(content))
    if content["retrain"] is None:
        return
    because = f"{content['retrain']['name']}: {content['retrain']['reason']}"
    if not retrain:
        log.warning("retraining is due: run the step with --retrain (%s)", because)
        return
    from ...continuous_training import retrain as retraining

    retraining.run(because=because)
