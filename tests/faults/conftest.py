"""One service for all fault tests of a pytest process; after every test the books are checked."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import _folder
from tests.faults import books
from tests.faults.harness import Service


@pytest.fixture(scope="package")
def running() -> Iterator[Service]:
    with _folder() as path, Service(path) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    running.begin()
    yield running
    books.check(running)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A failure shows the end of every log."""
    report = yield
    service = getattr(item, "funcargs", {}).get("service")
    if report.failed and service is not None:
        report.sections.append(("logs of the service", service.tails()))
    return report
