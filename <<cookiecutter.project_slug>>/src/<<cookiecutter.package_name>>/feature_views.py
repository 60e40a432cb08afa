"""Feature views: what was known of an entity when a prediction was made. YOURS; VIEWS may be empty.

The views of the example: how late flights have lately been that landed before the prediction. They
apply to data with the column AVAILABLE; other data has none until you write them here.
"""

import pandas as pd

from .continuous_training.features.view import View

AVAILABLE = "landed"  # the column that says from when on the rest of a row is known
LEAD = pd.Timedelta(hours=2)  # how long before `data.time` a prediction is made

VIEWS = [
    View("origin_delay_3h", by=["origin"], column="arr_delay", window="3h"),
    View("carrier_delay_3h", by=["carrier"], column="arr_delay", window="3h"),
    View("carrier_delay_24h", by=["carrier"], column="arr_delay", window="24h"),
    View("route_delay_7d", by=["origin", "dest"], column="arr_delay", window="7D"),
]
