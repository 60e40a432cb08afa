"""The peer of the engine Spark: `spark_udf.py PACKAGE FILE FOLDER` scores a Parquet file as MLflow says.

The model is the champion, as a function of Spark's that MLflow makes; FOLDER gets the probabilities.
"""

import importlib
import os
import sys

import mlflow
from pyspark.sql import SparkSession
from pyspark.sql.functions import struct

if __name__ == "__main__":
    predict = importlib.import_module(f"{sys.argv[1]}.experiment.predict")
    params, client = predict.load(), predict.tracking.connect()
    version = predict.require_version(client, params.register_.name, "champion")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = SparkSession.builder.config("spark.log.level", "ERROR").getOrCreate()
    uri = f"models:/{version.name}/{version.version}"
    inputs = mlflow.models.get_model_info(uri).signature.inputs.inputs
    udf = mlflow.pyfunc.spark_udf(spark, uri, result_type="array<double>", env_manager="local")
    rows = spark.read.parquet(sys.argv[2])
    # MLflow takes no whole numbers where the signature has doubles.
    columns = [
        rows[c.name].cast("double").alias(c.name) if c.type.name == "double" else rows[c.name]
        for c in inputs
    ]
    rows.select(udf(struct(*columns)).alias("probability")).write.parquet(sys.argv[3])
