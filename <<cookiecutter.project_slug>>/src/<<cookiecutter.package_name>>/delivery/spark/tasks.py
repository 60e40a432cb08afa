"""The engine Spark: tasks on the workers of a cluster, for what `predict` and `tune` do in process.

Spark carries numbers to the workers and bytes back, and never meets a type of the data: so a task
calls the functions that run in process, and answers the same. The workers need this package.
"""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from ...experiment.errors import UserError, sentence
from ...experiment.redaction import redact
from ...experiment.tracking import experiment_name

Task = Callable[[Any, int], Iterator[bytes]]  # of what all tasks share, and a task's number
ANSWER = pa.schema({"answer": pa.binary(), "mistake": pa.string()})

log = logging.getLogger(__name__)


def session() -> Any:
    """The session that is there, as on Databricks; else a new one. Raises UserError if none starts.

    SPARK_REMOTE, SPARK_MASTER or spark-defaults.conf say where; else it is all cores of this machine.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise UserError("--engine spark needs pyspark: see Spark in README.md") from None
    if not any(name.startswith(("SPARK_", "PYSPARK_SUBMIT")) for name in os.environ):
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"  # of this machine: no port for anybody else
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it logs what it raises
    # It warns of pandas 3, but nothing of pandas in it is used here.
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas")
    options: dict = {"spark.app.name": experiment_name(), "spark.log.level": "ERROR"}
    options["spark.ui.showConsoleProgress"] = str(sys.stderr.isatty()).lower()
    if master := os.environ.get("SPARK_MASTER"):
        options["spark.master"] = master
    try:
        spark = SparkSession.builder.config(map=options).getOrCreate()
        log.info("Spark %s", spark.version)
    except Exception as error:  # of Python, of Java, or of what lies between them
        if "JAVA_GATEWAY_EXITED" in str(error):
            raise UserError("--engine spark needs Java 17 or newer: see JAVA_HOME") from None
        raise UserError(f"Spark does not start (see SPARK_MASTER): {_short(error)}") from None
    return spark


def _short(error: Exception) -> str:
    return redact(" ".join(str(error).split()))[:400]


def answers(task: Task, shared: Any, count: int) -> Iterator[bytes]:
    """The answers of `task(shared, 0)` to `task(shared, count - 1)`, in this order.

    Raises UserError for a mistake of the user's that a worker has found.
    """
    spark = session()
    from py4j.protocol import Py4JError
    from pyspark import StorageLevel
    from pyspark.errors import PySparkException, PythonException

    context = getattr(spark, "sparkContext", None)  # Spark Connect has none, and no broadcast
    given = context.broadcast(shared) if context else SimpleNamespace(value=shared)
    schema = "answer binary, mistake string"
    rows = spark.range(0, count, 1, max(count, 1)).mapInArrow(partial(_run, task, given), schema)
    try:
        if context:  # on all workers at once: the iterator asks for one task after the other
            rows = rows.persist(StorageLevel.DISK_ONLY)
            rows.count()
        for answer, mistake in rows.toLocalIterator(prefetchPartitions=True):
            if mistake:
                raise UserError(mistake)
            yield bytes(answer)
    except PythonException as error:
        lacking = str(error).partition("ModuleNotFoundError: ")[2].partition("\n")[0]
        if not lacking:  # a bug: its traceback is for the developer
            raise
        raise UserError(f"the workers of Spark need this environment: {lacking}") from None
    except (PySparkException, Py4JError) as error:
        raise UserError(f"Spark (see SPARK_MASTER): {_short(error)}") from None
    finally:
        if context:
            with contextlib.suppress(Py4JError):  # it may have ended
                rows.unpersist()
                given.unpersist()


def _run(task: Task, given: Any, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """On a worker: the answers of the tasks whose numbers come."""
    for number in (number for batch in batches for number in batch.column(0).to_pylist()):
        try:
            for answer in task(given.value, number):
                yield pa.RecordBatch.from_pylist([{"answer": answer}], ANSWER)
        except Exception as error:
            message = sentence(error)
            if message is None:
                raise
            yield pa.RecordBatch.from_pylist([{"mistake": message}], ANSWER)
