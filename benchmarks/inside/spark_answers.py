"""Are the answers the same: `spark_answers.py LOCAL SPARK CLUSTER UDF` prints it.

The first three are files of the step predict, of which the others must equal the first; the last is
the folder of spark_udf.py, whose greatest difference is told.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

if __name__ == "__main__":
    local, *others = (pq.read_table(path) for path in sys.argv[1:4])
    udf = [pq.read_table(path)["probability"] for path in sorted(Path(sys.argv[4]).glob("part-*"))]
    udf = np.concatenate([np.array(part.to_pylist())[:, 1] for part in udf])
    furthest = float(np.abs(udf - local["probability_True"].to_numpy()).max())
    equal = all(other.equals(local) for other in others)
    print(json.dumps({"rows": len(local), "equal": equal, "udf": furthest}))
