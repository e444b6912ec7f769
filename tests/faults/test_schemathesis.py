"""Schemathesis over every route, small; ``python -m tests.faults.fuzz_api --examples 200`` tries more. P13."""

from tests.faults.fuzz_api import Plan, fuzz, prepared
from tests.services import stack_of


def test_no_request_valid_or_not_gets_an_answer_that_the_document_does_not_promise(tmp_path):
    with stack_of("embedded") as stack, prepared(stack, tmp_path) as found:
        result = fuzz(found, tmp_path, Plan(examples=2, seconds=20))
    assert result["failures"] == []
    assert result["checks"] > 100, result["output"]
