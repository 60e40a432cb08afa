"""Keep the files of the chosen level, make the first commit, and say what to do next."""

import json
import os
import sys
from pathlib import Path

ANSWERS = json.loads(r"""<< cookiecutter | tojson >>""")

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ANSWERS["_repo_dir"], "hooks"))

import finish  # noqa: E402

if __name__ == "__main__":
    os.unlink(__file__)  # cookiecutter's rendered copy of this hook, which it leaves behind
    project = Path.cwd()
    finish.keep_level(project, ANSWERS["package_name"], int(ANSWERS["maturity_level"]))
    finish.record_commit(project, Path(ANSWERS["_repo_dir"]))
    committed = finish.first_commit(project, ANSWERS)
    print(finish.next_steps(project, ANSWERS, committed))
