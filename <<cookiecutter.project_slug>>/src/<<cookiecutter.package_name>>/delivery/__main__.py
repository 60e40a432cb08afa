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
    "compare": (
        "train on a sample here and in another checkout, and put the metrics side by side",
        {
            "--against": {"required": True, "help": "folder of the other checkout"},
            "--rows": {"type": int, "default": 20_000, "help": "of the sample (default: 20000)"},
        },
    ),
}
