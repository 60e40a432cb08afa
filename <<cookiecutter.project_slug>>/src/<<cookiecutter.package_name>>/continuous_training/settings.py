"""The settings of the training floor: continuous_training.yaml, checked like params.yaml."""

from pathlib import Path

from pydantic import Field

from ..experiment import params
from ..experiment.params import ROOT, Section

QUARANTINE = "data/quarantine"  # where the batches go that break the schema


class AtLeast(Section):
    rows: int = Field(200, ge=1)
    days: int = Field(5, ge=1)
    minority: int = Field(20, ge=0)


class Gate(Section):
    holdout: int = Field(14, ge=1)
    at_least: AtLeast = AtLeast()
    tolerance: float = Field(0.005, ge=0)
    calibration_tolerance: float = Field(0.005, ge=0)
    strict: bool = False
    segment_tolerance: float = Field(0.02, ge=0)
    segment_rows: int = Field(500, ge=1)
    latency: float = Field(100, gt=0)
    new_inputs: bool = False
    doubt_rows: bool = True


class Degradation(Section):
    batches: int = Field(3, ge=1)
    worse: int = Field(2, ge=1)
    tolerance: float = Field(0.02, ge=0)


class Triggers(Section):
    schedule: int | None = Field(None, ge=1)
    new_data: bool = True
    degradation: Degradation | None = Degradation()
    drift: bool = False
    refusals: int = Field(3, ge=1)


class Drift(Section):
    psi: float = Field(0.2, gt=0)
    ks: float = Field(0.15, gt=0)


class Settings(Section):
    incoming: str | None = None
    gate: Gate = Gate()
    triggers: Triggers = Triggers()
    drift: Drift = Drift()


def load(path: Path | None = None) -> Settings:
    """Read and check continuous_training.yaml; raises UserError naming the key that is wrong."""
    return params.read(path or ROOT / "continuous_training.yaml", Settings)
