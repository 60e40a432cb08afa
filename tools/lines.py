"""Count the code lines that a generated project gets: `lines.py` prints each level and room.

A code line is one that is neither blank nor a comment nor part of a docstring. Tests and notebooks are apart.
"""

import ast
import sys
import tokenize
from collections import Counter
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TEMPLATE / "hooks"))

from levels import level_of  # noqa: E402

SOURCE = TEMPLATE / "<<cookiecutter.project_slug>>/src/<<cookiecutter.package_name>>"
LIMITS = {0: 1450, 1: 1650, 2: 2200}  # of each level's own code lines


def code_lines(path: Path) -> int:
    """The code lines of a Python file."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    skipped |= {tokenize.ENCODING, tokenize.ENDMARKER}
    used: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in skipped:
                used |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                used -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(used)


def main() -> int:
    levels: Counter[int] = Counter()
    rooms: Counter[str] = Counter()
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE)
        lines = code_lines(path)
        levels[level_of(f"src/PACKAGE/{name.as_posix()}", "PACKAGE")] += lines
        rooms["/".join(name.parts[:-1]) or name.name] += lines
    for room, lines in sorted(rooms.items()):
        print(f"{lines:6,} {room}")
    for level, limit in LIMITS.items():
        print(f"level {level}: {levels[level]:,} code lines (aim: {limit:,})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
