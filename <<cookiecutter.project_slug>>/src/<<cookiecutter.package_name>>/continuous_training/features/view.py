"""A feature view: a column that says what was known of an entity when a prediction was made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """The column `name`: the mean of `column` by entity (the columns `by`) over `window`, as "3h"."""

    name: str
    by: list[str]
    column: str
    window: str
