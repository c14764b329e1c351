"""What the page knows of close codes is what the grammar says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import flyx
from flyx.signaling.messages import CLOSE_CODES


def test_the_page_comes_back_after_the_same_close_codes_as_the_command_line() -> None:
    text = (Path(flyx.__file__).parent / "web" / "server_messages.js").read_text()
    table = re.search(r"const CLOSE_CODES = \{\n(.*?)\n\};", text, re.DOTALL)
    assert table is not None
    rows = re.findall(r"^  (\d{4}): (\[.*\]),$", table[1], re.MULTILINE)
    known = {int(code): json.loads(row) for code, row in rows}
    assert known == {code: [row.retry, row.meaning] for code, row in CLOSE_CODES.items()}
