"""Bad requests, bad headers of photos and bad names, each answered with its own code over a real socket; P10 and P13.

What only decoding shows, and what jobs say of masks and poses, is in ``python -m tests.faults.bad_inputs``, which runs all of the corpus.
"""

import pytest

from tests.faults.bad_inputs import companions, headers, names, requests, run
from tests.faults.bad_inputs.run import Outcome, Service
from tests.services import installed, stack_of


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad") / "data"
    # One stack: what is refused here is refused before a database is asked; tests/api asks both.
    with stack_of("embedded") as stack, installed(stack, folder) as installation, installation.api() as client:
        yield Service(client, folder)


def wrong(outcomes: list[Outcome]) -> list[Outcome]:
    assert outcomes
    return [outcome for outcome in outcomes if not outcome.is_right]


def test_every_bad_request_is_answered_with_its_code(service):
    assert wrong(run.run_requests(service, run.prepare(service), requests.cases())) == []
    assert service.incoming() == []


def test_every_file_that_is_no_photo_is_refused_by_its_code_and_leaves_nothing(service):
    assert wrong(run.run_door(service, headers.cases())) == []
    assert service.incoming() == []


def test_every_hostile_name_becomes_a_safe_one(service):
    refused, kept = run.send_odd(service, service.capture(), names.cases(1))
    assert refused == []
    assert len(kept) == len(names.NAMES)
    assert all("/" not in name and not name.startswith(".") for name in kept)


def test_none_of_it_was_an_error_of_ours(service):
    assert service.ask("GET", "/healthz").status_code == 200
    assert [status for status in service.statuses if status >= 500] == []


def test_the_corpus_is_made_by_its_seed_and_holds_two_hundred_cases():
    cases = [*headers.cases(), *names.cases(1), *companions.cases(1), *requests.cases()]
    assert len(cases) >= 200
    assert len({case.name for case in cases}) == len(cases)
    assert names.cases(2) == names.cases(2) != names.cases(1)
