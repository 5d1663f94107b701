"""schemathesis: requests that the OpenAPI page allows and forbids, and whether the answers are what it says."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from .served import Served, Witness

pytestmark = pytest.mark.slow

# What a schema cannot say may make a request that it allows a wrong one: one of three fields, a message's role.
EXCLUDED = [positive_data_acceptance]
SETTINGS = settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate], database=None
)
PATHS = {
    *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize", "/detokenize"),
    *("/v1/embeddings", "/v1/models", "/health", "/metrics"),
}


def test_answers_are_what_the_page_says(served: Served, witness: Witness) -> None:
    api = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    operations = [found.ok() for found in api.get_all_operations()]
    assert {operation.path for operation in operations} == PATHS
    cases = 0
    with witness.undisturbed():
        for operation in operations:
            # Without a body or parameters nothing can be forbidden.
            for mode in list(GenerationMode) if operation.method == "post" else [GenerationMode.POSITIVE]:

                @SETTINGS
                @given(case=operation.as_strategy(generation_mode=mode))
                def check(case: schemathesis.Case) -> None:
                    nonlocal cases
                    case.call_and_validate(timeout=60, excluded_checks=EXCLUDED)
                    cases += 1

                check()
    assert cases > 40
