"""Speed and memory of the template, each figure beside its limit; README.md tells how to read them.

`.venv/bin/python benchmarks/run.py [name ...]`, without a name all of them. Exit code 1 if any
figure is over its limit.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import continuous_training
import gate
import growth
import predict
import retraining
import scaffold
import serving
import spark
import train
import upgrade
from project import Line, Workshop

BENCHMARKS: dict[str, Callable[[Workshop], Iterator[Line]]] = {
    "generate": scaffold.generated,
    "help": scaffold.help_texts,
    "nothing-to-model": scaffold.nothing_to_model,
    "train": train.run,
    "predict": predict.run,
    "validate": continuous_training.validate,
    "join": continuous_training.join,
    "drift": continuous_training.drift,
    "retrain": retraining.run,
    "views": retraining.views,
    "gate": gate.run,
    "service": serving.run,
    "spark": spark.run,
    "upgrade": upgrade.run,
    "growth": growth.run,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    names = parser.parse_args(argv).names or list(BENCHMARKS)
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"{min(unknown)} is none of {', '.join(BENCHMARKS)}")
    over = False
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        workshop = Workshop(Path(folder))
        for name in names:
            load = os.getloadavg()[0]
            print(f"# {name}: {os.cpu_count()} cores, load {load:.1f} before", flush=True)
            for line in BENCHMARKS[name](workshop):
                print(line, flush=True)
                over |= line.ok is False
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
