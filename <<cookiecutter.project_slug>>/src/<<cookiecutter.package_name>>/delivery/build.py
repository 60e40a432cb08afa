"""`python -m << cookiecutter.package_name >> build` builds a release of the working tree and prints its digest."""

from . import releases


def run() -> None:
    digest = releases.build()
    releases.python(digest)
    print(digest)
