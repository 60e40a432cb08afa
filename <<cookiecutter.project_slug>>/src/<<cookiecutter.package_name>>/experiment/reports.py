"""The reports of the steps: files in the folder reports/ of the project."""

from typing import Any

import numpy as np
from pydantic_core import to_json

from .params import ROOT


def as_json(content: Any) -> str:
    """Indented JSON that ends with a newline; NaN and infinity are null, numbers of NumPy are numbers."""
    text = to_json(content, indent=2, inf_nan_mode="null", fallback=np.generic.item)
    return text.decode() + "\n"


def write(name: str, text: str) -> None:
    """Write reports/NAME, and the folders that it lies in."""
    path = ROOT / "reports" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_json(name: str, content: Any) -> None:
    """Write reports/NAME as JSON."""
    write(name, as_json(content))
