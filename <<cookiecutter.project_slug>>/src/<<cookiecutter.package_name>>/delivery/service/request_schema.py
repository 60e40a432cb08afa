"""What a request to /predict holds, and what is wrong with one that is refused: by the model's signature.

A row may lack any column of the signature. Columns of the feature views come from the online feature store
unless a row gives them. A row may also give `data.id` and the columns by which the views look up.
A number is finite, or true or false; a date is text, with or without a zone.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import pandas as pd
from pydantic import (
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    WithJsonSchema,
    create_model,
)

from ...experiment.column_types import Kinds

DTYPES = {"number": "float64", "date": "datetime64[us]", "empty": "float64"}
MAX_ERRORS = 100  # fields that an answer names: a body can hold a hundred thousand
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"description": "the token is missing or wrong"},
    413: {"description": "the body is too large"},
    415: {"description": "the body is no JSON"},
    421: {"description": "the header Host names another machine"},
}


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, bool) else value


def _date(value: Any) -> Any:
    """Only text: seconds or milliseconds since 1970 would be a guess."""
    if not isinstance(value, str) or "-" not in value[1:]:
        raise ValueError("a date is text, such as 2025-12-31T10:15:00")
    return value


# msgspec reads every request; pydantic reads those again that msgspec refuses, and describes all of them.
SHOWN = WithJsonSchema({"type": ["number", "boolean"]})
NUMBER = Annotated[float, BeforeValidator(_number), Strict(), AllowInfNan(False), SHOWN]
DATE = Annotated[datetime, BeforeValidator(_date)]
MSGSPEC: dict[str, Any] = {"number": float | None, "text": str | None, "date": datetime | None}
PYDANTIC: dict[str, Any] = {"number": NUMBER | None, "text": str | None, "date": DATE | None}


class Answer(BaseModel):
    """The answer to a request, its lists in the order of the rows."""

    request: str
    versions: list[int]
    predictions: list[float | list[float]]


def frame(rows: Sequence[tuple], kinds: Kinds) -> pd.DataFrame:
    """The rows (n, columns of these kinds) in canonical form."""
    columns: dict[str, Any] = {}
    for (name, kind), values in zip(kinds.items(), zip(*rows, strict=True), strict=True):
        is_text = kind == "text"
        columns[name] = pd.array(list(values), "str") if is_text else np.array(values, DTYPES[kind])
    return pd.DataFrame(columns, copy=False)


class RefusedError(Exception):
    """A request that is answered with this status and what is wrong."""

    def __init__(self, status: int, detail: Any) -> None:
        self.status, self.detail = status, detail


class RequestSchema:
    """Requests of at most `limit` rows with these columns.

    A column that a row lacks is None, or UNSET if it is one of `looked_up`.
    """

    def __init__(self, kinds: Kinds, limit: int, looked_up: tuple[str, ...] = ()) -> None:
        self.columns = list(kinds)
        self.dates = [k for k, kind in enumerate(kinds.values()) if kind == "date"]
        lacking = {name: msgspec.UNSET if name in looked_up else None for name in kinds}
        self.model = _model(kinds, limit, lacking)
        self.decoder = _decoder(kinds, limit, lacking)

    def rows(self, body: bytes) -> list[tuple]:
        """The rows of a request, columns in order; RefusedError names the wrong fields."""
        try:
            rows = [msgspec.structs.astuple(row) for row in self.decoder.decode(body).rows]
        except ValueError:  # pydantic knows more forms of a date, and names all that is wrong
            try:
                given = self.model.model_validate_json(body).rows  # type: ignore[attr-defined]
                rows = [tuple(dict(row).values()) for row in given]
            except ValidationError as error:  # without the values, which may be private
                wrong = error.errors(include_url=False, include_input=False, include_context=False)
                detail = [{**e, "loc": ["body", *e["loc"]]} for e in wrong[:MAX_ERRORS]]
                raise RefusedError(422, detail) from None
        if any(row[k] and row[k].tzinfo is not None for k in self.dates for row in rows):
            return [self._without_zone(number, row) for number, row in enumerate(rows)]
        return rows

    def _without_zone(self, number: int, row: tuple) -> tuple:
        """Dates with a zone become UTC, as in training; RefusedError if there is no such year."""
        values = list(row)
        for k in self.dates:
            if values[k] is not None and values[k].tzinfo is not None:
                try:
                    values[k] = values[k].astimezone(UTC).replace(tzinfo=None)
                except OverflowError:
                    place = ["body", "rows", number, self.columns[k]]
                    wrong = {"type": "datetime_range", "loc": place}
                    raise RefusedError(422, [wrong | {"msg": "Not in years 1 to 9999"}]) from None
        return tuple(values)


def _model(kinds: Kinds, limit: int, lacking: dict[str, Any]) -> type[BaseModel]:
    config = ConfigDict(extra="forbid")
    fields = {}
    for k, (name, kind) in enumerate(kinds.items()):
        value = Field(default_factory=lambda name=name: lacking[name], alias=name)
        fields[f"column_{k}"] = (PYDANTIC[kind], value)
    row = create_model("Row", __config__=config, **fields)  # type: ignore[call-overload]
    rows = Annotated[list[row], Field(min_length=1, max_length=limit)]  # type: ignore[valid-type]
    return create_model("Rows", __config__=config, rows=(rows, ...))


def _decoder(kinds: Kinds, limit: int, lacking: dict[str, Any]) -> msgspec.json.Decoder:
    names = {f"column_{k}": name for k, name in enumerate(kinds)}
    types = {key: MSGSPEC[kinds[name]] | type(lacking[name]) for key, name in names.items()}
    fields = [(key, types[key], lacking[name]) for key, name in names.items()]
    row = msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=True)
    rows = Annotated[list[row], msgspec.Meta(min_length=1, max_length=limit)]  # type: ignore[valid-type]
    body = msgspec.defstruct("Rows", [("rows", rows)], forbid_unknown_fields=True)
    return msgspec.json.Decoder(body)
