"""The API only grows: docs/openapi.json is what clients were promised, and a breaking change fails here."""

import copy
import json
from collections.abc import Callable

import pytest
from openapi_spec_validator import validate

from tests.openapi_promise import PROMISE, Json, breaks, current


@pytest.fixture(scope="module")
def promised() -> Json:
    document: Json = json.loads(PROMISE.read_text())
    return document


def test_nothing_that_was_promised_is_broken(promised: Json) -> None:
    assert list(breaks(promised, current())) == []


def test_what_was_added_is_written_down(promised: Json) -> None:
    assert current() == promised, "run: python -m tests.openapi_promise"


def test_the_document_is_valid_openapi(promised: Json) -> None:
    validate(promised)


def test_every_operation_says_what_it_is_for_and_how_it_fails(promised: Json) -> None:
    for path, operations in promised["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path}"
            assert operation["responses"].keys() >= {"200"} or operation["responses"].keys() & {"201", "202", "204"}
            assert path.startswith("/health") or operation["security"], f"{method} {path}"


def drop_path(document: Json) -> None:
    del document["paths"]["/jobs/"]


def drop_status(document: Json) -> None:
    del document["paths"]["/transcribe/{job_id}"]["get"]["responses"]["404"]


def drop_parameter(document: Json) -> None:
    document["paths"]["/jobs/"]["get"]["parameters"].pop()


def demand_parameter(document: Json) -> None:
    document["paths"]["/jobs/"]["get"]["parameters"][0]["required"] = True


def drop_field(document: Json) -> None:
    del document["components"]["schemas"]["JobOut"]["properties"]["status"]


def change_type(document: Json) -> None:
    document["components"]["schemas"]["JobOut"]["properties"]["filename"] = {"type": "integer"}


def demand_option(document: Json) -> None:
    body = document["paths"]["/transcribe/"]["post"]["requestBody"]["content"]["multipart/form-data"]
    body["schema"]["required"].append("language")


def drop_media_type(document: Json) -> None:
    del document["paths"]["/transcribe/"]["post"]["requestBody"]["content"]["application/json"]


@pytest.mark.parametrize(
    "change",
    [
        drop_path,
        drop_status,
        drop_parameter,
        demand_parameter,
        drop_field,
        change_type,
        demand_option,
        drop_media_type,
    ],
)
def test_a_change_that_breaks_clients_is_seen(promised: Json, change: Callable[[Json], None]) -> None:
    newer = copy.deepcopy(promised)
    change(newer)
    assert list(breaks(promised, newer)) != []


def test_what_only_adds_breaks_nobody(promised: Json) -> None:
    newer = copy.deepcopy(promised)
    newer["paths"]["/new"] = newer["paths"]["/jobs/"]
    newer["components"]["schemas"]["JobOut"]["properties"]["more"] = {"type": "string"}
    newer["paths"]["/jobs/"]["get"]["parameters"].append({"in": "query", "name": "more", "required": False})
    assert list(breaks(promised, newer)) == []
