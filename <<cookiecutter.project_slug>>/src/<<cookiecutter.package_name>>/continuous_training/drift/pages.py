"""Pages from the package's templates: each is one file without scripts, for a desk or a phone.

Whatever an HTML template is given is escaped; a Markdown template uses the filter `markdown`. A template
is named by its path inside the package.
"""

import math
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ...experiment.cli import PACKAGE
from ...experiment.markdown import plain


def moment(seconds: float, form: str = "%d %b %Y, %H:%M") -> str:
    """Seconds since 1970 as a date and time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def number(value: float | None) -> str:
    """Three decimals, or fewer of a large number; a dash if there is none."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    size = abs(value)
    return f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:,.0f}"


def interval(ends: tuple[float, float] | None) -> str:
    """Both ends of an interval; nothing if one of them is not known."""
    if ends is None or not all(map(math.isfinite, ends)):
        return ""
    return f"{number(ends[0])} to {number(ends[1])}"


def markdown(text: str) -> Markup:
    """One line of text for Markdown: its marks are escaped, and `@` mentions nobody."""
    return Markup(plain(text).replace("@", "@\u200b"))  # noqa: S704, for `plain` escapes it


def render(template: str, **values: Any) -> str:
    """The text of a template; raises jinja2.UndefinedError for a value that it lacks."""
    environment = Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": moment, "number": number, "interval": interval}
    environment.filters |= {"markdown": markdown}
    return environment.get_template(template).render(values)
