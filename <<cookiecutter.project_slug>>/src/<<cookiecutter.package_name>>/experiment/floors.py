"""The floors above this one: all that level 0 knows of higher levels.

A floor is a subpackage with a module `floor`, which may name its commands (COMMANDS), the files that its
steps write into the repository (WRITTEN) and the tags that a version takes over from its run (TAGS).
"""

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .cli import PACKAGE

if TYPE_CHECKING:
    import pandas as pd

    from .params import Data

NAMES = ("continuous_training", "delivery")


def floors() -> list[ModuleType]:
    """The module `floor` of each floor that is there; a folder that is left without code is none."""
    places = [f"{PACKAGE}.{name}" for name in NAMES]
    there = [place for place in places if getattr(importlib.util.find_spec(place), "origin", None)]
    return [importlib.import_module(f"{place}.floor") for place in there]


def gathered(name: str) -> tuple[str, ...]:
    """What all floors together say under a name, such as WRITTEN."""
    return tuple(word for floor in floors() for word in getattr(floor, name, ()))


def feature_store(data: "Data", history: "pd.DataFrame | None" = None) -> Any:
    """The feature store over a history (None: all batches); None where there are no feature views."""
    return _answer("feature_store", data, history)


def reproduction(tags: dict[str, str], version: str) -> str | None:
    """The command that makes a version again, where a floor has one for a run with these tags."""
    return _answer("reproduction", tags, version)


def _answer(function: str, *arguments: Any) -> Any:
    """What the first floor that has such a function returns; None if no floor has one."""
    for floor in floors():
        if hasattr(floor, function):
            return getattr(floor, function)(*arguments)
    return None
