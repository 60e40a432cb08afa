"""The settings of every step: params.yaml, checked before anything starts."""

import difflib
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import UserError

_SOURCE = Path(__file__).resolve().parents[3]
ROOT = _SOURCE if (_SOURCE / "params.yaml").exists() else Path.cwd()


def _name(value: Any) -> Any:
    """YAML reads an unquoted 2013 or 2013-04-01 as a number or a date; a batch's name is text."""
    return str(value) if isinstance(value, int | date) and not isinstance(value, bool) else value


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Kind = TypeVar("Kind", bound=Section)


class Csv(Section):
    sep: str = ","
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"
    dayfirst: bool = False


class Data(Section):
    source: str
    target: str
    time: str | None = None
    id: str | None = None
    drop: list[str] = []
    text: list[str] = []
    through: Annotated[str | None, BeforeValidator(_name)] = None
    unlabelled: str | bool | int | float = "drop"
    csv: Csv = Csv()


class Split(Section):
    test: float = Field(0.2, gt=0, lt=1)


class Model(Section):
    arguments: dict[str, Any] = {}
    trusted_types: list[str] = []


class Tune(Section):
    candidates: int = Field(10, ge=1)
    folds: int = Field(3, ge=2)


class Evaluate(Section):
    metric: Literal[
        "roc_auc", "average_precision", "accuracy", "brier", "log_loss", "mae", "rmse", "r2"
    ]
    segments: list[str] = []


class Register(Section):
    name: str


class Params(Section):
    task: Literal["classification", "regression"]
    seed: int = 0
    experiment: str | None = None  # in MLflow; None: as the registered model is called
    data: Data
    split: Split = Split()
    model: Model = Model()
    tune: Tune = Tune()
    evaluate: Evaluate
    register_: Register = Field(alias="register")

    @model_validator(mode="after")
    def _metric_of_task(self) -> "Params":
        if (self.evaluate.metric in ("mae", "rmse", "r2")) != (self.task == "regression"):
            raise ValueError(f"evaluate.metric {self.evaluate.metric} is none of {self.task}")
        return self

    def flat(self) -> dict[str, Any]:
        """Every setting as `section.key: value`, as MLflow logs them."""

        def walk(prefix: str, value: Any):
            if isinstance(value, dict) and value:
                for key, inner in value.items():
                    yield from walk(f"{prefix}.{key}" if prefix else key, inner)
            else:
                yield prefix, value

        return dict(walk("", self.model_dump(by_alias=True)))


def load(path: Path | None = None) -> Params:
    """Read and check params.yaml; raises UserError naming the key that is wrong."""
    return read(path or ROOT / "params.yaml", Params)


def read(path: Path, kind: type[Kind]) -> Kind:
    """The settings in a YAML file; raises UserError naming the key that is wrong."""
    settings = parse(path)
    if not isinstance(settings, dict):
        raise UserError(f"{path.name} holds no settings: it needs its sections")
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise UserError("; ".join(_explain(path.name, kind, e) for e in error.errors())) from None


def parse(path: Path) -> Any:
    """What a YAML file holds; raises UserError if it is missing, or no YAML that can be read."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the step inside the project") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from None


def _explain(file: str, kind: Any, error: Any) -> str:
    if not error["loc"]:
        return f"{file}: {error['ctx']['error']}"
    *sections, key = [str(part) for part in error["loc"]]
    name = ".".join([*sections, key])
    if error["type"] != "extra_forbidden":
        return f"{file}: {name}: {error['msg'].lower()}, got {error['input']!r:.80}"
    section = kind
    for part in sections:
        if get_origin(section) is dict:  # sections by names of one's own
            section = get_args(section)[1]
            continue
        section = {f.alias or n: f.annotation for n, f in section.model_fields.items()}[part]
        if isinstance(section, UnionType):  # or None, which switches it off
            section = get_args(section)[0]
    known = [field.alias or n for n, field in section.model_fields.items()]
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}" if close else f"there are {', '.join(known)}"
    return f"{file}: {name} is not a setting; {hint}?"
