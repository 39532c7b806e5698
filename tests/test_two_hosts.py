"""Two hosts of workers that share no disk: both work, and one that is cut off loses nothing and writes nothing late."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engines.fake import encode_script
from tests.checker import check_invariants
from tests.conftest import _folder
from tests.hosts import Host, Hosts
from tests.processes import until

pytestmark = [pytest.mark.xdist_group("two hosts"), pytest.mark.timeout(240)]
WINDOW_S = 30  # of a recording without pauses


@pytest.fixture(scope="module")
def running() -> Iterator[Hosts]:
    with _folder() as path, Hosts(path) as hosts:
        yield hosts


@pytest.fixture
def hosts(running: Hosts) -> Iterator[Hosts]:
    yield running
    with running.session() as session:
        check_invariants(session, longest_silence_s=0)


def test_each_worker_signs_in_under_the_name_of_its_host(hosts: Hosts) -> None:
    if not hosts.are_named:
        pytest.skip("only root on Linux can give processes a host name of their own: both workers have this machine's")
    workers = {
        row["worker"].partition(":")[0] for row in hosts.rows("SELECT worker FROM processes WHERE kind = 'worker'")
    }
    assert workers == {"host-a", "host-b"}


def test_jobs_are_shared_out_over_both_hosts(hosts: Hosts) -> None:
    jobs = [hosts.submit(sleep=0.5) for _ in range(8)]
    hosts.completed(*jobs)
    assert {host.name for host in hosts.takers(*jobs)} == {"host-a", "host-b"}


def test_a_host_that_is_cut_off_loses_its_job_to_the_other_which_goes_on_from_the_checkpoint(
    hosts: Hosts, tmp_path: Path
) -> None:
    marker = tmp_path / "windows"
    job = hosts.submit(seconds=3 * WINDOW_S, every=True, times=2, sleep=2, marker=str(marker))
    until(lambda: hosts.job(job)["position_s"] and windows(marker) == 2)  # one window is saved, the next under way
    (cut_off,) = hosts.takers(job)
    with cut_off.cut_off():
        (done,) = hosts.completed(job)
        first, second = hosts.takers(job)
        assert (first, second) == (cut_off, other(hosts, cut_off))
        assert windows(marker) == 4, "the first of three windows was done again"
        written = hosts.rows("SELECT * FROM transcription_results"), segments_of(hosts, job)
    until(lambda: cut_off.has_said("attempt.stopped", job))
    until(lambda: hosts.is_seen(cut_off))
    taken = until(lambda: takes_jobs_again(hosts, cut_off), 60)
    assert taken, "it takes new jobs"
    now = hosts.job(job)
    assert now == done, "what it had to say came too late"
    assert (now["attempt"], now["failures"], now["losses"], now["infra_losses"]) == (2, 0, 0, 1)
    assert segments_of(hosts, job) == written[1]
    assert [str(row["text"]).strip() for row in written[1]] == ["hello", "hello 30", "hello 60"]
    assert windows(marker) == 4


def windows(marker: Path) -> int:
    """How many an engine has begun with."""
    return marker.stat().st_size if marker.exists() else 0


def other(hosts: Hosts, one: Host) -> Host:
    return hosts.b if one is hosts.a else hosts.a


def segments_of(hosts: Hosts, job: str) -> list[dict[str, object]]:
    return hosts.rows("SELECT * FROM transcript_segments WHERE job_id = CAST(:job AS uuid) ORDER BY number", job=job)


def takes_jobs_again(hosts: Hosts, host: Host) -> bool:
    jobs = [hosts.submit(sleep=0.5) for _ in range(4)]
    hosts.completed(*jobs)
    return host in hosts.takers(*jobs)


def test_recordings_and_results_are_in_s3_and_no_host_keeps_any(hosts: Hosts) -> None:
    job = hosts.submit()
    hosts.completed(job)
    answer = hosts.http.get(f"/transcribe/{job}/result", params={"format": "txt", "redirect": "true"})
    assert answer.is_redirect
    assert httpx.get(answer.headers["location"]).text.strip() == "hello"
    stored = {row["storage_key"] for row in hosts.rows("SELECT storage_key FROM transcription_jobs")}
    assert stored < set(hosts.bucket.objects())
    sound = encode_script({"text": "hello"})[:64]
    for host in (hosts.a, hosts.b):
        assert not [path for path in host.files() if sound in path.read_bytes()]
        assert not (host.folder / "audio").exists()
