"""Where an environment's releases run: processes on this machine, or Kubernetes.

Both roll out without a gap: the old release answers until the new one is ready.
"""

from ..settings import Settings
from .deployment import Target
from .kubernetes import Kubernetes
from .local import Local


def of(name: str, settings: Settings) -> Target:
    """The target of an environment of delivery.yaml."""
    if settings.environments[name].target == "local":
        return Local(name, settings)
    return Kubernetes(name, settings)
