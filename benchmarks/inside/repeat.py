"""Write a file of N rows: `repeat.py FILE N`, the batches of data/raw again and again, or some rows
from all over the year.

The table is made of references to one year, so N costs no memory; row groups are those that pyarrow
makes by default.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if __name__ == "__main__":
    rows = int(sys.argv[2])
    year = pa.concat_tables([pq.read_table(path) for path in sorted(Path("data/raw").iterdir())])
    if rows < len(year):
        year = year.take(np.linspace(0, len(year) - 1, rows).astype(int))
    many = pa.concat_tables([year] * (rows // len(year) + 1))
    pq.write_table(many.slice(0, rows), sys.argv[1])
