"""Both stacks, as for the service's other tests."""

from collections.abc import Iterator

import pytest

from tests.services import Stack, stack_of


@pytest.fixture(scope="session", params=["embedded", "servers"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with stack_of(request.param) as found:
        yield found
