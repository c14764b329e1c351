"""What an unexpected exception in one of our tasks becomes: an error with its name, never a silent end."""

from __future__ import annotations

import logging

from flyx.errors import FlyxError, as_flyx_error

logger = logging.getLogger("flyx.client")


def failure_of(error: Exception, task: str) -> FlyxError:
    """Return the error that ends what a task was for; what is no FlyxError is logged with its traceback.

    Args:
        error: what the task raised.
        task: what it did, for the log.
    """
    failure = as_flyx_error(error)
    if failure is not error:
        logger.error("%s failed", task, exc_info=error)
    return failure
