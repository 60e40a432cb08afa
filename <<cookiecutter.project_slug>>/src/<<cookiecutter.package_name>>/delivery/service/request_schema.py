"""What a request holds, and what is said of one that is wrong: by the signature of the model.

A row may lack any column of the signature. Columns of the feature views come from the online feature store
unless a row gives them; the columns that these go by, and `data.id`, may be given beside the signature.
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

TYPES: dict[str, Any] = {"number": float | None, "text": str | None, "date": datetime | None}
DTYPES = {"number": "float64", "date": "datetime64[us]", "empty": "float64"}
TOKEN = "token"  # of the security scheme # noqa: S105
WRONG = 100  # fields that an answer names: a body can hold a hundred thousand


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, bool) else value


def _date(value: Any) -> Any:
    """Only text: seconds or milliseconds since 1970 would be a guess."""
    if not isinstance(value, str) or "-" not in value[1:]:
        raise ValueError("a date is text, such as 2025-12-31T10:15:00")
    return value


# The same, where a request is told what is wrong with it.
SHOWN = WithJsonSchema({"type": ["number", "boolean"]})
NUMBER = Annotated[float, BeforeValidator(_number), Strict(), AllowInfNan(False), SHOWN]
DATE = Annotated[datetime, BeforeValidator(_date)]
TOLD: dict[str, Any] = {"number": NUMBER | None, "text": str | None, "date": DATE | None}


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


class Schema:
    """Requests of at most `limit` rows with these columns; those looked up are UNSET where not given."""

    def __init__(self, kinds: Kinds, limit: int, looked_up: tuple[str, ...] = ()) -> None:
        names = {f"column_{k}": pair for k, pair in enumerate(kinds.items())}
        config = ConfigDict(extra="forbid")
        gone = {name: msgspec.UNSET if name in looked_up else None for name in kinds}
        fields = {
            key: (TOLD[kind], Field(default_factory=lambda name=name: gone[name], alias=name))
            for key, (name, kind) in names.items()
        }
        row = create_model("Row", __config__=config, **fields)  # type: ignore[call-overload]
        several = Annotated[list[row], Field(min_length=1, max_length=limit)]  # type: ignore[valid-type]
        self.model: type[BaseModel] = create_model("Rows", __config__=config, rows=(several, ...))
        quick = msgspec.defstruct(
            "Row",
            [
                (key, TYPES[kind] | (msgspec.UnsetType if name in looked_up else None), gone[name])
                for key, (name, kind) in names.items()
            ],
            rename={key: name for key, (name, _) in names.items()},
            forbid_unknown_fields=True,
        )
        whole = Annotated[list[quick], msgspec.Meta(min_length=1, max_length=limit)]  # type: ignore[valid-type]
        body = msgspec.defstruct("Rows", [("rows", whole)], forbid_unknown_fields=True)
        self.decoder = msgspec.json.Decoder(body)
        self.columns = list(kinds)
        self.dates = [k for k, kind in enumerate(kinds.values()) if kind == "date"]

    def rows(self, body: bytes) -> list[tuple]:
        """The rows of a request, columns in order; RefusedError names the wrong fields."""
        try:
            found = [msgspec.structs.astuple(row) for row in self.decoder.decode(body).rows]  # type: ignore[attr-defined]
        except ValueError:  # pydantic knows more forms of a date, and says all that is wrong
            try:
                given = self.model.model_validate_json(body).rows  # type: ignore[attr-defined]
                found = [tuple(dict(row).values()) for row in given]
            except ValidationError as error:  # without the values, which may be private
                wrong = error.errors(include_url=False, include_input=False, include_context=False)
                detail = [{**e, "loc": ["body", *e["loc"]]} for e in wrong[:WRONG]]
                raise RefusedError(422, detail) from None
        if any(row[k] and row[k].tzinfo is not None for k in self.dates for row in found):
            return [self._without_zone(number, row) for number, row in enumerate(found)]
        return found

    def operation(self, token: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """The description of /predict for OpenAPI, and the schemas that it names."""
        asked = self.model.model_json_schema(ref_template="#/components/schemas/{model}")
        answer = {
            "type": "object",
            "properties": {
                "request": {"type": "string"},
                "versions": {"type": "array", "items": {"type": "integer"}},
                "predictions": {"type": "array", "items": {"type": ["number", "array"]}},
            },
            "required": ["request", "versions", "predictions"],
        }
        refused = {"type": "object", "properties": {"detail": {}}, "required": ["detail"]}
        said = {"422": "which fields are wrong", "413": "the body is too large"}
        said |= {"415": "the body is no JSON", "421": "the header Host names another machine"}
        said |= {"401": "the token is missing or wrong"} if token else {}
        parts = asked.pop("$defs", {})
        return {
            "summary": "Predictions of one row or many",
            "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
            "responses": {"200": _response("in the order of the rows", answer)}
            | {status: _response(text, refused) for status, text in said.items()},
        } | ({"security": [{TOKEN: []}]} if token else {}), parts

    def _without_zone(self, number: int, row: tuple) -> tuple:
        """Dates with a zone become UTC, as in training; RefusedError if there is no such year."""
        values = list(row)
        for k in self.dates:
            if values[k] is not None and values[k].tzinfo is not None:
                try:
                    values[k] = values[k].astimezone(UTC).replace(tzinfo=None)
                except OverflowError:
                    place = ["body", "rows", number, self.columns[k]]
                    said = {"type": "datetime_range", "loc": place}
                    raise RefusedError(422, [said | {"msg": "Not in years 1 to 9999"}]) from None
        return tuple(values)


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
