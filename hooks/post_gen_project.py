"""Record the template, make the first commit, and say what to do next."""

import json
import os
import sys
from pathlib import Path

ANSWERS = json.loads(r"""<< cookiecutter | tojson >>""")

sys.dont_write_bytecode = True
HOOKS = r"""<< hooks >>"""
ORIGIN = r"""<< origin(cookiecutter._template) >>"""

sys.path.insert(0, HOOKS)

import finish  # noqa: E402
import monorepo  # noqa: E402
import record  # noqa: E402

if __name__ == "__main__":
    os.unlink(__file__)  # cookiecutter's rendered copy of this hook, which it leaves behind
    project = Path.cwd()
    record.write(project, Path(HOOKS).parent, ORIGIN)
    moved = monorepo.move_out(project, ANSWERS["project_slug"])
    finish.remove_empty_folders(project)
    committed = finish.first_commit(project, ANSWERS)
    print(finish.next_steps(project, ANSWERS, committed))
    if moved:
        print(moved)
