"""A full disk refuses recordings, whole and at once; nothing half-written stays, and it is over when there is room."""

import subprocess

import httpx
import pytest

from tests.faults.harness import Service

pytestmark = pytest.mark.timeout(120)
IN_A_NAMESPACE = ("unshare", "--map-root-user", "--mount")
SMALL_DISK = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'  # as only this process and its children see it


def can_mount() -> bool:
    try:
        done = subprocess.run((*IN_A_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"), check=False, timeout=10)
    except OSError:
        return False
    return done.returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs unprivileged user namespaces (or root) to make a small disk")
def test_fault_19_a_full_disk_refuses_a_recording_and_keeps_no_part_of_it(service: Service) -> None:
    service.restart("api", before=(*IN_A_NAMESPACE, "sh", "-c", SMALL_DISK, str(service.audio)))
    assert service.try_submit(seconds=10) is None
    assert service.refusals[-1].status_code == httpx.codes.INSUFFICIENT_STORAGE
    service.restart("api")
    assert service.rows("SELECT id FROM transcription_jobs") == []
    service.completed(service.submit(seconds=10))
