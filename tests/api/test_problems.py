"""What every refusal says of itself."""

import pytest


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [
        ("PUT", "/v1/captures", "GET, POST"),
        ("PATCH", "/v1/jobs/0193a0f0-0000-7000-8000-000000000000", "GET, DELETE"),
        ("DELETE", "/", "GET, HEAD"),
        ("BREW", "/healthz", "GET"),
    ],
)
def test_a_wrong_method_is_told_all_right_ones(client, method, address, allowed):
    answer = client.request(method, address)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
