"""The contract as people use it, with keys on: curl, a client generated from our own document, a purge that is one."""

import json
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg2
import pytest
import redis
from psycopg2 import sql
from standardwebhooks import Webhook

from stack.process import StackError
from stack.running import Stack
from tests.api_client import WAV
from tests.conftest import ROOT
from tests.far_server import Exchange, FarServer, far_server
from tests.processes import until
from tests.s3_server import CREDENTIALS, s3_server, use_credentials

pytestmark = [pytest.mark.xdist_group("contract stack"), pytest.mark.timeout(300)]
SAMPLE = ROOT / "demo" / "samples" / "english.wav"
OPERATOR = "b0c4de8a9f1e2d3c4b5a69788796a5b4"
FINAL = ("completed", "failed", "cancelled")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("contract")
    with Stack(folder, whisper_model_size="demo", api_key=OPERATOR, outbound_allow="127.0.0.0/8") as running:
        yield running


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    return new_key(stack)


def new_key(stack: Stack) -> str:
    """A user's, made by the command of the README."""
    command = (sys.executable, "-m", "admin", "keys", "create", "alice", "--rate-limit", "6000")
    environment = {"DATA_DIR": str(stack.data_dir), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (token,) = (word for word in done.stdout.split() if word.startswith("tk_") and len(word) > 20)
    return token


@pytest.fixture
def http(stack: Stack, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        yield client


def curl(stack: Stack, key: str, *arguments: str) -> dict[str, Any]:
    command = ("curl", "--silent", "--show-error", "-H", f"Authorization: Bearer {key}", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def finished(http: httpx.Client, path: str, within_s: float = 120) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = http.get(path).json()
        return found if found["status"] in FINAL else None

    found = until(look, within_s)
    assert found is not None
    return found


def test_a_hundred_files_in_one_curl_come_back_as_one_archive(stack: Stack, key: str, tmp_path: Path) -> None:
    names = [f"{number:03}.wav" for number in range(100)]
    for name in names:
        (tmp_path / name).write_bytes(WAV)
    parts = [part for name in names for part in ("-F", f"files=@{tmp_path / name}")]
    batch = curl(stack, key, *parts, f"{stack.url}/transcribe/batch")
    assert [job["filename"] for job in batch["jobs"]] == names
    address = f"{stack.url}{batch['status_url']}"
    until(lambda: curl(stack, key, address)["request_counts"]["completed"] == 100, 200)
    archive = tmp_path / "all.zip"
    subprocess.run(
        ("curl", "-sSf", "-H", f"X-API-Key: {key}", "-o", archive, f"{address}/results?format=srt"), check=True
    )
    listed = subprocess.run(
        (sys.executable, "-m", "zipfile", "-l", archive), capture_output=True, text=True, check=True
    )
    assert listed.stdout.count(".srt") == 100


def test_a_recording_is_submitted_by_curl_with_its_address(stack: Stack, key: str, http: httpx.Client) -> None:
    with far_server(lambda exchange: exchange.answer(200, SAMPLE.read_bytes())) as far:
        job = curl(stack, key, "-d", f"url={far.url('/english.wav')}", f"{stack.url}/transcribe/")
        assert finished(http, job["status_url"])["result"]["text"].startswith("one two three")


def test_bazarr_gets_language_and_subtitles_with_nothing_but_an_address(stack: Stack, key: str) -> None:
    """Its two requests in their order: sound without a header, the key in the address."""
    with wave.open(str(SAMPLE)) as sample:
        sound = {"audio_file": ("audio_file", sample.readframes(sample.getnframes()))}
    endpoint = stack.url.replace("http://", f"http://any:{key}@")
    told = httpx.post(f"{endpoint}/detect-language", params={"encode": "false"}, files=sound, timeout=60).json()
    assert (told["language_code"], told["detected_language"]) == ("en", "english")
    assert 0.5 < told["confidence"] <= 1
    asked = {"task": "transcribe", "language": told["language_code"], "output": "srt", "encode": "false"}
    answer = httpx.post(f"{endpoint}/asr", params=asked, files=sound, timeout=60)
    assert (answer.status_code, answer.headers["asr-engine"]) == (200, "faster_whisper")
    number, times, text = answer.text.splitlines()
    assert (number, text[:13]) == ("1", "one two three")
    assert re.fullmatch(r"00:00:0\d,\d{3} --> 00:00:0\d,\d{3}", times)


def test_speakr_gets_segments(stack: Stack, key: str) -> None:
    asked: dict[str, str | bool] = {"encode": True, "output": "json", "diarize": True, "enable_diarization": True}
    files = {"audio_file": ("meeting.wav", SAMPLE.read_bytes(), "audio/wav")}
    answer = httpx.post(f"{stack.url}/asr", params=asked, files=files, headers={"X-API-Key": key}, timeout=60)
    heard = answer.raise_for_status().json()
    assert heard["language"] == "en"
    assert heard["text"].strip().startswith("one two three")
    assert all(part["start"] < part["end"] and part["text"].strip() for part in heard["segments"])


def test_nothing_of_a_purged_job_remains_anywhere(stack: Stack, key: str, http: httpx.Client) -> None:
    marker = f"marker{uuid4().hex}"
    far: FarServer
    with far_server(lambda exchange: exchange.answer(204)) as far:
        form = {
            "initial_prompt": marker,
            "hotwords": marker,
            "metadata": json.dumps({"name": marker}),
            "webhook_url": far.url(f"/{marker}"),
        }
        headers = {"Idempotency-Key": marker}
        files = {"file": (f"{marker}.wav", SAMPLE.read_bytes())}
        job = http.post("/transcribe/", files=files, data=form, headers=headers).json()
        assert finished(http, job["status_url"])["status"] == "completed"
        until(lambda: far.seen)
        verified(far.seen[0], http)
        http.get(f"/transcribe/{job['job_id']}/events")
        http.get("/jobs/", params={"q": marker})
        until(lambda: http.get("/webhooks/deliveries").json()["data"][0]["state"] == "delivered")
    assert places_of(marker, stack) != [], "the search itself finds nothing"
    assert http.delete(job["status_url"], params={"purge": True}).status_code == 204
    assert places_of(marker, stack) == []
    assert places_of(job["job_id"], stack, logs=False) == []


def verified(exchange: Exchange, http: httpx.Client) -> None:
    secret = http.get("/webhooks/secret").json()["secret"]
    said = Webhook(secret).verify(exchange.received.decode(), dict(exchange.headers))
    assert said["type"] == "transcription.completed"


def places_of(marker: str, stack: Stack, *, logs: bool = True) -> list[str]:
    """Tables, Redis and files of ours that hold it. The servers' own logs of writes are theirs."""
    servers = dict(
        line.split("=", 1) for line in (stack.data_dir / "secrets" / "servers.env").read_text().splitlines() if line
    )
    places = [*in_tables(marker, servers["DATABASE_URL"]), *in_redis(marker, servers["REDIS_URL"])]
    for folder in ("audio", "logs") if logs else ("audio",):
        files = (path for path in (stack.data_dir / folder).rglob("*") if path.is_file())
        places += [str(path) for path in files if marker.encode() in path.read_bytes()]
    return places


def in_tables(marker: str, url: str) -> Iterator[str]:
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            query = sql.SQL("SELECT count(*) FROM {} AS row WHERE row::text LIKE %s").format(sql.Identifier(table))
            cursor.execute(query, (f"%{marker}%",))
            if cursor.fetchone() != (0,):
                yield table


def in_redis(marker: str, url: str) -> Iterator[str]:
    with redis.Redis.from_url(url) as client:
        for name in client.scan_iter():
            held = client.lrange(name, 0, -1) if client.type(name) == b"list" else [client.dump(name) or b""]
            if any(marker.encode() in item for item in [name, *held]):
                yield f"redis {name!r}"


def test_with_recordings_in_s3_nothing_of_them_lies_on_a_disk_that_api_and_workers_would_have_to_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_credentials(monkeypatch, CREDENTIALS)
    with s3_server() as new_bucket:
        bucket = new_bucket()
        there: dict[str, Any] = {"storage_url": f"s3://{bucket.name}/in", "s3_endpoint_url": bucket.endpoint_url}
        with Stack(tmp_path / "data", whisper_model_size="demo", **there) as running:
            with httpx.Client(base_url=running.url, timeout=30) as http:
                job = http.post("/transcribe/", files={"file": ("a.wav", SAMPLE.read_bytes())}).json()
                assert finished(http, job["status_url"])["result"]["text"].startswith("one two three")
                assert len(bucket.objects()) == 1
                assert http.get(f"{job['status_url']}/audio").content == SAMPLE.read_bytes()
                assert http.delete(job["status_url"], params={"purge": True}).status_code == 204
            assert bucket.objects() == []
            assert not (running.data_dir / "audio").exists()


def test_with_a_key_in_its_database_the_stack_may_be_opened_and_without_one_not(tmp_path: Path) -> None:
    """The second start knows only what the first has left behind."""
    folder = tmp_path / "data"
    opened: dict[str, Any] = {"host": "0.0.0.0", "whisper_model_size": "demo"}
    with Stack(folder, whisper_model_size="demo"):
        pass
    with pytest.raises(StackError, match="lets strangers in"):
        Stack(folder, **opened).start()
    with Stack(folder, whisper_model_size="demo") as closed:
        token = new_key(closed)
    with Stack(folder, **opened) as running:
        assert httpx.get(f"{running.url}/jobs/").status_code == 401
        assert httpx.get(f"{running.url}/jobs/", headers={"X-API-Key": token}).status_code == 200


def test_a_client_that_is_generated_from_our_document_works(
    stack: Stack, key: str, http: httpx.Client, tmp_path: Path
) -> None:
    http.post("/transcribe/", files={"file": ("a.wav", WAV)}).raise_for_status()
    document = tmp_path / "openapi.json"
    document.write_bytes(httpx.get(f"{stack.url}/openapi.json").content)
    generate = ("openapi_python_client", "generate", "--path", document, "--output-path", tmp_path / "generated")
    done = subprocess.run(
        (sys.executable, "-m", *generate), capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    script = """
import json, sys
from pathlib import Path
from whisper_queue_client import AuthenticatedClient
from whisper_queue_client.api.jobs import list_jobs_jobs_get as listing
from whisper_queue_client.api.transcribe import get_job_transcribe_job_id_get as one
client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
jobs = listing.sync(client=client, limit=3)
job = one.sync(jobs.data[0].job_id, client=client)
print(json.dumps([str(jobs.data[0].job_id), str(job.job_id), job.status]))
"""
    command = (sys.executable, "-c", script, stack.url, key)
    environment = {"PYTHONPATH": str(tmp_path / "generated"), "PATH": "/usr/bin:/bin"}
    used = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert used.returncode == 0, used.stderr
    listed, found, status = json.loads(used.stdout)
    assert listed == found
    assert status in (*FINAL, "pending", "processing")
