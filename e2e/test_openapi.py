"""The running server against its own description: each operation, with what may and may not be sent to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.schemas import OpenApiSchema

from e2e.processes import Server, clean_environment


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenApiSchema]:
    home = tmp_path_factory.mktemp("server")
    # It asks for more persistent rooms than one address may have.
    options = ("--max-persistent-per-ip", "0", "--admin-token", "operator")
    server = Server(clean_environment(home), home, *options)
    try:
        yield schemathesis.openapi.from_url(server.url.replace("ws:", "http:") + "/openapi.json")
        assert "Traceback" not in server.err
        assert server.process.poll() is None
    finally:
        server.kill()


@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value
)
def test_each_operation_keeps_to_its_description(description: OpenApiSchema, mode: GenerationMode) -> None:
    tried = set()
    for found in description.get_all_operations():
        operation = found.ok()
        # Nothing else takes anything that could be wrong.
        if mode is GenerationMode.NEGATIVE and operation.label != "POST /room":
            continue
        tried.add(operation.label)

        @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps_to_it(case: schemathesis.Case) -> None:
            case.call_and_validate()

        keeps_to_it()
    assert "POST /room" in tried
    assert len(tried) == 8 or mode is GenerationMode.NEGATIVE
