"""Every handler is tried with what its description allows, and with what it does not (schemathesis)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import tinyseg
from tests.tinyseg.serve.conftest import StillTracker, app_of, drawn_source, until
from tinyseg.serve.live import Live
from tinyseg.serve.openapi import description

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (the test extra)")
BASE = "http://127.0.0.1:8000"
# Of every operation and kind; TINYSEG_FUZZ=500 for a long run.
EXAMPLES = int(os.environ.get("TINYSEG_FUZZ", "8"))
OPERATIONS = [(path, method, row) for path, rows in description()["paths"].items() for method, row in rows.items()]
# What takes nothing cannot be given anything wrong.
CASES = [(path, method, "POSITIVE") for path, method, _ in OPERATIONS] + [
    (path, method, "NEGATIVE") for path, method, row in OPERATIONS if "requestBody" in row or "parameters" in row
]


@pytest.fixture(scope="module")
def fuzzed(fake: tinyseg.Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Live]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinyseg.serve.guard.REQUESTS_BURST", 10**9)
        live = Live(drawn_source, lambda: StillTracker(fake), tmp_path_factory.mktemp("recordings"))
        live.start()
        until(lambda: live.latest)
        live.add(tinyseg.Prompt(box=[100, 60, 200, 160])).result(5)
        schema = schemathesis.openapi.from_asgi("/openapi.json", app_of(live, fake), headers={"host": "127.0.0.1"})
        schema.config.update(base_url=BASE)
        yield schema, live
        live.stop()


@pytest.mark.parametrize("path, method, kind", CASES)
def test_handlers_keep_to_their_description(fuzzed: tuple[Any, Live], path: str, method: str, kind: str) -> None:
    schema, live = fuzzed
    operation = schema[path][method]
    mode = schemathesis.GenerationMode[kind]

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def tried(case: Any) -> None:
        response = case.call(headers={"host": "127.0.0.1"})
        checks = [schemathesis.checks.not_a_server_error] if response.status_code != 503 else []
        case.validate_response(response, checks=[*checks, *conformance()])
        if kind == "NEGATIVE":
            assert 400 <= response.status_code < 500, response.status_code
        assert live.running and live.latest is not None

    tried()


def conformance() -> list[Any]:
    """Checks that a response is one of those described."""
    from schemathesis.specs.openapi import checks  # noqa: PLC0415 - beside the optional package

    return [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]
