"""Features: the columns that the model sees, made from those of the table. YOURS.

`derive` is part of the logged model: a served row gets the same features as a training row. Change it
as you like; it may return any columns of numbers (float64) and words (str), a row for each row.
"""

import pandas as pd


def derive(frame: pd.DataFrame, time: str | None) -> pd.DataFrame:
    """The columns the model sees, float64 or str, from those in canonical form.

    Each date becomes its hour and weekday; a date other than `time` also becomes an age, in days
    before `time` (or since 2000 without a time column).
    """
    columns = {}
    for name, values in frame.items():
        if not pd.api.types.is_datetime64_dtype(values.dtype):
            columns[name] = values
            continue
        columns[f"{name}_hour"] = values.dt.hour + values.dt.minute / 60
        columns[f"{name}_weekday"] = values.dt.day_of_week.astype("float64")
        if name != time:
            start = frame[time] if time in frame else pd.Timestamp("2000-01-01")
            columns[f"{name}_days"] = (start - values).dt.total_seconds() / 86400
    return pd.DataFrame(columns, index=frame.index)
