"""What level 0 is told of this floor (experiment/floors.py): its commands."""

from ..experiment.cli import STEPS, Step, Steps

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
    **{
        name: Step(f"delivery.spark.{name}", STEPS[name].help, STEPS[name].arguments | ENGINE)
        for name in ("predict", "tune")
    },
    "service": Step(
        "delivery.service.app",
        "answer prediction requests over HTTP with the model of an environment",
        ENV | {"--port": {"type": int, "default": 8080, "help": "port (default: 8080)"}},
    ),
    "build": Step(
        "delivery.release.build",
        "build the package and the release that holds it, and print its digest",
    ),
    "deploy": Step(
        "delivery.release.deploy",
        "roll out a release and a model, check them, and go back if they fail",
        ENV
        | {
            "--image": {"help": "digest of a release (default: that of the environment before)"},
            "--stop": {"action": "store_true", "help": "let nothing run there"},
            "--version": {"help": "number or alias (default: of the environment before; champion)"},
        },
    ),
    "canary": Step(
        "delivery.release.canary",
        "let a version answer for more and more of the traffic, and go back if it does not do well",
        {
            "--env": {"default": "production", "help": "environment (default: production)"},
            "--version": {"default": "champion", "help": "number or alias (default: champion)"},
            "--share": {"type": float, "help": "an A/B test: this share in percent, until --stop"},
            "--shadow": {"action": "store_true", "help": "score without answering, until --stop"},
            "--stop": {"action": "store_true", "help": "let there be no canary and no shadow"},
        },
    ),
    "monitor": Step(
        "delivery.monitoring.monitor",
        "join predictions with late labels; live metrics, drift, alerts, and a dashboard",
        {
            "--env": {"default": "production", "help": "environment (default: production)"},
            "--retrain": {"action": "store_true", "help": "retrain here, if an alert asks for it"},
        },
    ),
    "compare": Step(
        "delivery.release.compare",
        "train on a sample here and in another checkout, and put the metrics side by side",
        {
            "--against": {"required": True, "help": "folder of the other checkout"},
            "--rows": {"type": int, "default": 20_000, "help": "of the sample (default: 20000)"},
        },
    ),
}
