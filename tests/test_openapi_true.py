"""The OpenAPI document is true: requests that are made from it are never answered with what it does not say.

`make fuzz` runs the same for 10,000 requests.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck
from hypothesis import settings as effort
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, Response
from schemathesis.checks import CHECKS, load_all_checks

from app import create_app
from config import Settings
from jobs.claim import claim
from tests.api_client import WAV, rows
from tests.checker import WORKER, finish
from tests.openapi_promise import current

pytestmark = [pytest.mark.timeout(0 if os.environ.get("FUZZ_EXAMPLES") else 120)]
FUZZ = int(os.environ.get("FUZZ_EXAMPLES", "0"))
EXAMPLES = 2 * FUZZ + 10 if FUZZ else 10  # a route, of which there are more than thirty
HOST = {"Host": "127.0.0.1"}
schemathesis.openapi.format("binary", st.sampled_from([WAV]) | st.binary(max_size=2000))
load_all_checks()
PROMISED: list[Any] = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        # Not by chance: of a parameter that is repeated the last one counts, which it takes for a mistake of ours
        *([] if FUZZ else ["negative_data_rejection"]),
    ]
)


def is_never_a_crash(context: CheckContext, response: Response, case: Case[Any]) -> None:
    """503 is an answer: no worker runs here, and health says so."""
    assert response.status_code != 500, response.text


CHECKED: list[Any] = [*PROMISED, is_never_a_crash]


schema = schemathesis.openapi.from_dict(current())


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"max_upload_size_mb": 1}))


@pytest.fixture(autouse=True)
def worker(settings: Settings) -> Iterator[None]:
    """Ends every job at once: callers of /v1 wait for theirs."""
    done = Event()

    def work() -> None:
        while not done.wait(0.02):
            for (job_id,) in rows("SELECT id FROM transcription_jobs WHERE status = 'pending'"):
                if (claimed := claim(job_id, claimed_by=WORKER, settings=settings)) is not None:
                    finish(claimed.fence)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        yield
        done.set()
        working.result(30)


@schema.parametrize()
@effort(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not FUZZ,
    suppress_health_check=list(HealthCheck),
)
def test_every_route_answers_as_its_description_says(app: FastAPI, case: Case[Any]) -> None:
    case.operation.schema.app = case.operation.app = app
    case.call_and_validate(headers=HOST, checks=CHECKED)
