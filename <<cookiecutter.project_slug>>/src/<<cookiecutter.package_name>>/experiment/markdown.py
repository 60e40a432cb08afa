"""Values in a report in Markdown: what a column, a segment or a setting holds stays mere text."""

import re
from html import escape


def plain(value: object) -> str:
    """One line in which no mark of Markdown and no tag has a meaning; for table cells, too."""
    text = escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text)


def code(value: object) -> str:
    """One line of code, in which nothing has a meaning."""
    return "`" + " ".join(str(value).split()).replace("`", "'") + "`"
