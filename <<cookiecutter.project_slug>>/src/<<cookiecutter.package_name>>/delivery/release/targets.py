"""Where an environment's releases run: processes on this machine, or Kubernetes.

Both roll out without a gap: the old one answers until the new one is ready.
"""

from ..settings import Settings
from .deployment import Target
from .kubernetes import Kubernetes
from .local import Local


def of(name: str, settings: Settings) -> Target:
    if settings.environments[name].target == "local":
        return Local(name, settings)
    return Kubernetes(name, settings)
