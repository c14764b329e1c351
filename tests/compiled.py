"""What cannot be asked of the compiled build (.build/compile.py)."""

from __future__ import annotations

import pytest

from flyx.sctp import is_compiled

needs_lines = pytest.mark.skipif(is_compiled(), reason="compiled code has no lines to count")
"""For a test that counts the steps of something compiled (tests/fuzz/work.py)."""
