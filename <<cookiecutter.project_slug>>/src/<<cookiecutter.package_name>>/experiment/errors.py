"""A user's mistake in one sentence, without a traceback."""

import errno
import sys

from .redaction import redact


class UserError(Exception):
    """What is wrong, and which file, column or setting to change."""

    code = 1  # of the command that it ends

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


def sentence(error: BaseException) -> str | None:
    """The message for a user's mistake or a failure of the machine; None for a bug."""
    text = redact(" ".join(str(error).split()))[:700]
    if isinstance(error, UserError):
        return text
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return "the disk is full or over its quota: free some space and run the step again"
    if isinstance(error, OSError) and error.filename:
        return redact(f"{error.filename}: {error.strerror}")
    stores = {"mlflow.exceptions": "MlflowException", "sqlalchemy.exc": "DBAPIError"}
    for module, name in stores.items():
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return f"MLflow (see MLFLOW_TRACKING_URI): {text}"
    if type(error).__name__ == "InvalidParameterError":  # scikit-learn's, which is private
        return f"params.yaml: model.arguments: {text}"
    return None
