"""Which path of the generated project belongs to which maturity level; nothing else says so.

A folder stands for all below it. PACKAGE is the project's package. A path belongs to the line that
is the longest prefix of it, so a folder of a higher level may lie in one of a lower level.
"""

LEVELS = {
    0: [
        ".cookiecutter.yaml",
        ".gitattributes",
        ".gitignore",
        ".pre-commit-config.yaml",
        "LICENSE",
        "Makefile",
        "README.md",
        "notebooks",
        "params.yaml",
        "pyproject.toml",
        "requirements/example.txt",
        "requirements/experiment.txt",
        "requirements/uv.txt",
        "src/PACKAGE/__init__.py",
        "src/PACKAGE/__main__.py",
        "src/PACKAGE/data.py",
        "src/PACKAGE/example.py",
        "src/PACKAGE/experiment",
        "src/PACKAGE/features.py",
        "src/PACKAGE/model.py",
        "tests/conftest.py",
        "tests/test_data.py",
        "tests/test_features.py",
        "tests/test_model.py",
        "tests/test_notebooks.py",
        "tests/test_steps.py",
    ],
    1: [
        ".dvc",
        ".dvcignore",
        ".github/workflows/continuous-training.yml",
        "continuous_training.yaml",
        "dvc.yaml",
        "make/continuous_training.mk",
        "requirements/continuous_training.txt",
        "src/PACKAGE/continuous_training",
        "src/PACKAGE/feature_views.py",
        "tests/continuous_training",
    ],
    2: [
        ".dockerignore",
        ".github/actions",
        ".github/workflows/cd.yml",
        ".github/workflows/ci.yml",
        ".github/workflows/monitor.yml",
        ".github/workflows/template.yml",
        "Dockerfile",
        "delivery.yaml",
        "deploy",
        "make/delivery.mk",
        "requirements/delivery.txt",
        "requirements/service.txt",
        "src/PACKAGE/delivery",
        "tests/delivery",
    ],
}


def level_of(path: str, package: str) -> int:
    """The level of a file, by its path from the project's root with `/`; KeyError if no line has it."""
    best: tuple[int, int] | None = None
    for level, prefixes in LEVELS.items():
        for prefix in prefixes:
            prefix = prefix.replace("PACKAGE", package)
            if path == prefix or path.startswith(prefix + "/"):
                best = max(best or (0, 0), (len(prefix), level))
    if best is None:
        raise KeyError(f"no line of LEVELS holds {path}")
    return best[1]
