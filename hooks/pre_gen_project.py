"""Refuse answers that cannot make a working project, before a single file is written."""

import json
import os
import sys

ANSWERS = json.loads(r"""<< cookiecutter | tojson >>""")

sys.dont_write_bytecode = True
sys.path.insert(0, r"""<< hooks >>""")

import answers  # noqa: E402

if __name__ == "__main__":
    os.unlink(__file__)  # cookiecutter's rendered copy of this hook, which it leaves behind
    problem = answers.problem(ANSWERS)
    if problem:
        print(problem, file=sys.stderr, flush=True)
        answers.remove_empty_folders(ANSWERS)
        sys.exit(1)
