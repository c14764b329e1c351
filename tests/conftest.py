"""What all unit tests share."""

from __future__ import annotations

# Sets how many examples Hypothesis tries, before any test is made.
import tests.effort  # noqa: F401
