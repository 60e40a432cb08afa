"""The settings of the delivery floor: delivery.yaml, checked like params.yaml."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..experiment import params
from ..experiment.errors import UserError
from ..experiment.params import ROOT, Section


class Service(Section):
    rows: int = Field(1000, ge=1)
    body: int = Field(2_000_000, ge=1)
    follow: float = Field(5, gt=0)
    journal: int = Field(200_000_000, ge=1)


class Environment(Section):
    target: Literal["local", "kubernetes"]
    port: int | None = Field(None, ge=1, le=65535)
    url: str | None = None
    context: str | None = None

    @model_validator(mode="after")
    def _needs(self) -> "Environment":
        if self.target == "local" and self.port is None:
            raise ValueError("the target local needs a port")
        if self.target == "kubernetes" and self.url is None:
            raise ValueError("the target kubernetes needs the url at which the service answers")
        return self


class Checks(Section):
    ready: float = Field(60, gt=0)
    requests: int = Field(200, ge=1)
    connections: int = Field(4, ge=1)
    p99: float = Field(500, gt=0)
    errors: float = Field(0, ge=0, le=1)


class Canary(Section):
    steps: list[Annotated[float, Field(gt=0, le=100)]] = Field([5, 25, 100], min_length=1)
    rows: int = Field(500, ge=1)
    minutes: float = Field(60, gt=0)
    errors: float = Field(0, ge=0, le=1)
    p99: float = Field(500, gt=0)
    psi: float = Field(1, gt=0)


class Monitor(Section):
    days: int = Field(60, ge=1)
    rows: int = Field(50_000, ge=100)
    labelled: int = Field(500, ge=1)
    p99: float = Field(500, gt=0)
    errors: float = Field(0.01, ge=0, le=1)
    drift: Literal["alert", "retrain"] | None = "alert"
    staleness: int | None = Field(90, ge=1)


class Settings(Section):
    service: Service = Service()
    image: str | None = None
    environments: dict[str, Environment]
    approval: Literal["dispatch", "reviewers"] = "dispatch"
    checks: Checks = Checks()
    canary: Canary = Canary()
    monitor: Monitor = Monitor()

    @model_validator(mode="after")
    def _image(self) -> "Settings":
        kinds = {environment.target for environment in self.environments.values()}
        if "kubernetes" in kinds and self.image is None:
            raise ValueError("the target kubernetes needs an image")
        return self


def load(path: Path | None = None) -> Settings:
    """Read and check delivery.yaml; raises UserError naming the key that is wrong."""
    return params.read(path or ROOT / "delivery.yaml", Settings)


def before(name: str, settings: Settings) -> str | None:
    """The environment that a release passes before this one; UserError if there is none so named."""
    names = list(settings.environments)
    if name not in names:
        raise UserError(f"delivery.yaml has no environment {name}: there are {', '.join(names)}")
    place = names.index(name)
    return names[place - 1] if place else None
