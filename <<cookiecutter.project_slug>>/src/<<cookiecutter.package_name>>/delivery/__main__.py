"""The commands of delivery, steps of the package: `python -m << cookiecutter.package_name >> deploy --env dev`."""

from ..__main__ import STEPS, Steps

ENGINE = {
    "--engine": {
        "default": "local",
        "choices": ["local", "spark"],
        "help": "in this process, or on the workers of Spark (default: local)",
    }
}
ENV = {"--env": {"default": "dev", "help": "environment of delivery.yaml (default: dev)"}}
COMMANDS: Steps = {
    # The steps of level 0, which may also run elsewhere.
    **{name: (STEPS[name][0], STEPS[name][1] | ENGINE) for name in ("predict", "tune")},
    "service": (
        "answer prediction requests over HTTP with the model of an environment",
        ENV | {"--port": {"type": int, "default": 8080, "help": "port (default: 8080)"}},
    ),
    "build": ("build the package and the release that holds it, and print its digest", {}),
    "deploy": (
        "roll out a release and a model, check them, and go back if they fail",
        ENV
        | {
            "--image": {"help": "digest of a release (default: that of the environment before)"},
            "--stop": {"action": "store_true", "help": "let nothing run there"},
            "--version": {"help": "number or alias (default: of the environment before; champion)"},
        },
    ),
    "canary": (
        "let a version answer for more and more of the traffic, and go back if it does not do well",
        {
            "--env": {"default": "production", "help": "environment (default: production)"},
            "--version": {"default": "champion", "help": "number or alias (default: champion)"},
            "--share": {"type": float, "help": "an A/B test: this share in percent, until --stop"},
            "--shadow": {"action": "store_true", "help": "score without answering, until --stop"},
            "--stop": {"action": "store_true", "help": "let there be no canary and no shadow"},
        },
    ),
    "rehearse": ("go through the whole loop on this machine, in a copy of the project", {}),
    "monitor": (
        "join predictions with late labels; live metrics, drift, alerts, and a dashboard",
        {
            "--env": {"default": "production", "help": "environment (default: production)"},
            "--retrain": {"action": "store_true", "help": "retrain here, if an alert asks for it"},
            "--claim": {
                "action": "store_true",
                "help": "hand retraining and issues over to the caller, who confirms it",
            },
            "--confirm": {
                "action": "append",
                "metavar": "CHANNEL:CLAIM",
                "help": "`retrain` or `issue`, and the `claim` of reports/monitor.json: it is done",
            },
        },
    ),
    "compare": (
        "train on a sample here and in another checkout, and put the metrics side by side",
        {
            "--against": {"required": True, "help": "folder of the other checkout"},
            "--rows": {"type": int, "default": 20_000, "help": "of the sample (default: 20000)"},
        },
    ),
}
