"""`doctor`: looks at everything that the service stands on, and says what to do. A FAIL is exit code 1."""

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace

import redis
from pydantic import ValidationError

import errors
from admin import machine, servers, weights
from admin.commands import Commands, add_command, explained, prepare, print_json
from admin.finding import Finding, fail, ok
from config import VERSION, Settings, get_settings

Check = Callable[[Settings], Finding]
CHECKS: dict[str, Check] = {
    "database": servers.database,
    "migrations": servers.migrations,
    "connections": servers.connections,
    "database clock": servers.database_clock,
    "redis": servers.redis_server,
    "redis clock": servers.redis_clock,
    "storage": servers.recordings,
    "model": weights.model,
    "bundled model": weights.bundled_model,
    "device": machine.device,
    "memory": weights.memory_for_model,
    "open files": machine.open_files,
    "shared memory": machine.shared_memory,
    "disk": machine.disk,
    "relay": servers.relay,
    "workers": servers.workers,
    "access": servers.access,
    "secrets": machine.secrets,
}
NEEDS = {  # what has failed once is not waited for again
    **dict.fromkeys(("migrations", "connections", "database clock"), "database"),
    "redis clock": "redis",
    **dict.fromkeys(("relay", "workers"), "migrations"),
}


def add(groups: Commands) -> None:
    command = add_command(
        groups, "doctor", _doctor, about="check everything that the service stands on", example="doctor"
    )
    command.set_defaults(prepare=int)  # wrong settings are a finding


def _doctor(asked: argparse.Namespace) -> int:
    found = look()
    if asked.json:
        print_json([asdict(one) for one in found])
    else:
        for one in found:
            print(f"{one.state:4}  {one.name:14}  {one.found}" + (f" -> {one.advice}" if one.advice else ""))
    return int(any(one.state == "FAIL" for one in found))


def look() -> list[Finding]:
    """A finding for each check, in their order; where the settings are wrong, that one alone."""
    try:
        prepare()
        settings = get_settings()
    except ValidationError as error:
        return [replace(fail(explained(error), "Mend them, in the environment or in .env."), name="settings")]
    found = {"settings": ok(f"valid; version {VERSION}, DATA_DIR {settings.data_dir}")}
    for name, check in CHECKS.items():
        needed = NEEDS.get(name, "settings")
        found[name] = (
            fail(f"not looked at: {needed} comes first", "") if found[needed].state == "FAIL" else _run(check, settings)
        )
    return [replace(finding, name=name) for name, finding in found.items()]


def _run(check: Check, settings: Settings) -> Finding:
    """What is raised in a check is its finding. Of foreign errors only the name: their text may hold an address."""
    try:
        return check(settings)
    except errors.ServiceError as error:
        return fail(str(error), "")
    except redis.AuthenticationError:
        return fail("Redis refuses the password", "Put the right one into REDIS_URL.")
    except redis.RedisError as error:
        return fail(f"Redis does not answer ({type(error).__name__})", "Start it, or correct REDIS_URL.")
    except Exception as error:  # noqa: BLE001 one check that cannot be made must not hide the others
        return fail(f"could not be looked at ({type(error).__name__})", "See docs/operations.md; it may be a bug.")
