"""A feature view: a column that says what was known of an entity when a prediction was made."""

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """The column `name`: the mean of `column` by entity (the columns `by`) over `window`, as "3h".

    A service whose newest row of the view is older than `max_age` (as "2D"; None: any) is not ready.
    """

    name: str
    by: list[str]
    column: str
    window: str
    max_age: str | None = None
