"""Which files cookiecutter writes: those of the chosen level, and none over a project that is there.

cookiecutter.json names `Floors` in `_extensions`, so that it also works with hooks switched off.
"""

import json
import os
import sys
from pathlib import Path

from jinja2 import Environment
from jinja2.ext import Extension

HOOKS = Path(__file__).resolve().parent
SOURCE = HOOKS.parent / "<<cookiecutter.project_slug>>"
PACKAGE = "<<cookiecutter.package_name>>"
LINE_MARKS = ("line_statement_prefix", "line_comment_prefix")
# Later cookiecutter changes the folder, and a template may be given relative to it.
STARTED_IN = Path.cwd()


class Floors(Extension):
    """Give files of higher levels an empty name, which cookiecutter skips; upgrade what exists."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        import_hooks()
        self.own = refuse_other_settings(environment)
        environment.globals |= {
            "is_written": self.is_written,
            "origin": origin,
            "hooks": str(HOOKS),
        }
        self.started = False

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Refuse what is not the template's own; wrap the paths of files, to write some of them.

        What cookiecutter renders besides files has no name: answers, hooks and paths.
        """
        if name is not None or source in self.own:
            return source
        from answers import template_mark

        walking = Path.cwd() == SOURCE
        mark = template_mark(source.replace(PACKAGE, "") if walking else source)
        if mark:
            sys.exit(f"{source[:80]!r} holds {mark!r}, a mark of the template: leave it out")
        if not walking:
            return source
        start, end = self.environment.block_start_string, self.environment.block_end_string
        test = f"{start} if is_written(cookiecutter, {source!r}) {end}"
        return f"{test}{source}{start} endif {end}"

    def is_written(self, answers: dict, path: str) -> bool:
        """Whether a folder (an absolute path) or a file of the template is of the chosen level."""
        if "_output_dir" not in answers:  # a question's default, asked while in this very folder
            return True
        from answers import level_problem
        from levels import level_of

        target = Path(answers["_output_dir"], answers["project_slug"])
        if not self.started:
            self.started = True
            if problem := level_problem(answers["maturity_level"]):  # with hooks switched off
                if not any(target.iterdir()):
                    target.rmdir()
                sys.exit(problem)
            refuse_or_upgrade(target, answers)
        if os.path.isabs(path):
            return True
        path = path.replace(PACKAGE, "PACKAGE").replace(os.sep, "/")
        return level_of(path, "PACKAGE") <= int(answers["maturity_level"])


def origin(given: str) -> str:
    """The template as it was given; a folder by its whole path."""
    return str(STARTED_IN / given) if (STARTED_IN / given).is_dir() else given


def refuse_other_settings(environment: Environment) -> set[str]:
    """What the template has rendered besides files: its questions, its hooks, its folder's name.

    Ends cookiecutter if a configuration file or an answer sets how Jinja reads them.
    """
    asked = json.loads((HOOKS.parent / "cookiecutter.json").read_text(encoding="utf-8"))
    wanted = asked["_jinja2_env_vars"] | dict.fromkeys(LINE_MARKS)
    if any(getattr(environment, key) != value for key, value in wanted.items()):
        sys.exit("an answer sets _jinja2_env_vars, how the template is rendered: leave it out")
    answers = [value for value in asked.values() if isinstance(value, str)]
    hooks = [path.read_text(encoding="utf-8") for path in HOOKS.glob("*_gen_project.py")]
    return {SOURCE.name, *answers, *hooks}


def import_hooks() -> None:
    """Let the modules beside this one be imported by their names, as the hooks do."""
    sys.dont_write_bytecode = True
    if str(HOOKS) not in sys.path:
        sys.path.insert(0, str(HOOKS))


def refuse_or_upgrade(target: Path, answers: dict) -> None:
    """End cookiecutter here if the folder has something in it: a project of ours is upgraded."""
    if not any(target.iterdir()):
        return
    import upgrade

    sys.stdout.flush()
    if (target / upgrade.RECORD).is_file():
        sys.exit(upgrade.run(target, HOOKS.parent, answers, origin(answers["_template"])))
    way = "adopt it with hooks/upgrade.py --adopt, if it is a project that lost its record"
    advice = f"choose another project_slug or another --output-dir; or {way}"
    sys.exit(f"{target} is not empty: {advice}")
