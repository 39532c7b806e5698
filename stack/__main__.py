"""`python -m stack [--verbose]`: everything on this machine, until Ctrl-C. `make run` calls it."""

import argparse
import signal
import sys
from contextlib import closing, suppress
from dataclasses import replace

import psycopg2
from pydantic import ValidationError

from config import Settings, get_settings, inherited_environment
from stack.banner import banner
from stack.home import Home
from stack.mirror import Mirror
from stack.plan import Plan, choose_addresses, flower_login, lets_strangers_in
from stack.postgres import Postgres
from stack.process import StackError, die_with_parent, tail
from stack.redis import Redis
from stack.state import only_one
from stack.supervisor import Stopped, Supervisor


def say(message: str) -> None:
    """At once, also into a pipe; a terminal that is gone must not keep us from stopping what we started."""
    with suppress(OSError):
        print(message, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="show the logs of all services here too")
    parser.add_argument("--fast", action="store_true", help="for tests: a power cut may lose data")
    arguments = parser.parse_args()
    if "MAKELEVEL" in inherited_environment():
        die_with_parent(signal.SIGTERM)  # make does not hand on its own death
    try:
        run(get_settings(), verbose=arguments.verbose, durable=not arguments.fast)
    except ValidationError as error:
        complaints = "; ".join(f"{'.'.join(map(str, e['loc'])).upper()} {e['msg']}" for e in error.errors())
        return _fail(f"Settings are wrong: {complaints}")
    except StackError as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(message, file=sys.stderr, flush=True)
    return 1


def run(settings: Settings, *, verbose: bool = False, durable: bool = True) -> None:
    home = Home(settings.data_dir)
    with only_one(home.root):
        mirror = Mirror(home.logs, say) if verbose else lambda: None
        addresses = choose_addresses(settings, home)
        flower_login(settings, home)  # refuses before anything has started
        say(f"Starting in {home.root} ...")
        plan = Plan(settings, home, addresses, counters=str(home.counters()))
        try:
            with Supervisor(home.logs, home.root / "stack.json", say=say, mirror=mirror) as supervisor:
                chooser = supervisor.start_once(plan.choose_model())  # takes a second: meanwhile, the servers
                plan = start_servers(supervisor, plan, durable=durable)
                supervisor.finish(supervisor.start_once(plan.migrate()))
                if settings.is_open_without_key and not has_keys(plan.database_url):
                    raise lets_strangers_in(settings)
                supervisor.finish(chooser)
                plan = replace(plan, model=tail(chooser.log, 1).strip())
                start_services(supervisor, plan)
                say(banner(plan))
                supervisor.watch()
        except Stopped:
            say("Stopped. The data stays.")
        finally:
            home.forget_servers()
            home.forget_counters()
            home.hand_over()


def start_servers(supervisor: Supervisor, plan: Plan, *, durable: bool) -> Plan:
    """Embeds the servers for which no address was given."""
    settings, home = plan.settings, plan.home
    database_url, redis_url = settings.database_url, settings.redis_url.get_secret_value()
    if not database_url:
        postgres = Postgres(home, durable=durable)
        supervisor.add_and_wait(postgres.spec)
        database_url = postgres.url
    if not redis_url:
        redis = Redis(home)
        supervisor.add_and_wait(redis.spec)
        redis_url = redis.url
    home.tell_servers(database_url, redis_url)
    return replace(plan, database_url=database_url, redis_url=redis_url)


def has_keys(database_url: str) -> bool:
    with closing(psycopg2.connect(database_url, connect_timeout=3)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM api_keys LIMIT 1")
        return cursor.fetchone() is not None


def start_services(supervisor: Supervisor, plan: Plan) -> None:
    services = plan.services()
    supervisor.add(*services)
    for service in services:
        supervisor.wait(service.ready, service.ready_within_s, service.name)


if __name__ == "__main__":
    sys.exit(main())
