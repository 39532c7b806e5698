"""The model hub: whether it can be reached, asked for ten seconds at most, and the download of a model from it.

What it sends is hashed before it is believed: huggingface_hub itself compares no more than sizes.
"""

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from engines.checksums import damaged, damaged_blobs, discard
from engines.foreign import foreign_errors, translate
from errors import DownloadFailed, ModelUnavailable, ServiceError

_ANSWER_S, _REACH_S = 5.0, 10.0  # a resolver without a network can take far longer to say so
_REMEMBERED_S = 300.0
_UNREACHABLE = "The model hub cannot be reached: check the connection."
_REFUSED = "The model hub refuses the model: check HF_TOKEN."
_away_until = [float("-inf")]  # of this process: the next model need not wait for the same silence


def download(
    repository: str, cache: Path, *, wanted: list[str], revision: str | None, published: Mapping[str, str], token: str
) -> Path:
    """The folder of the snapshot. `revision`: a commit; None: the newest of `main`.

    Raises DownloadFailed where the hub cannot be reached, ModelUnavailable where it refuses or sends something else.
    """
    ask(repository, revision, token)
    with foreign_errors():
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not sys.stderr.isatty():  # a worker's log
            disable_progress_bars()
        snapshot = Path(
            snapshot_download(
                repository, revision=revision, cache_dir=cache, token=token or None, allow_patterns=wanted
            )
        )
        wrong = damaged(snapshot, published) or damaged_blobs(snapshot)
        if wrong:
            discard(snapshot, wrong)
            raise ModelUnavailable(f"The model hub sent another {wrong[0]} than the one published: refused.")
    return snapshot


def ask(repository: str, revision: str | None, token: str) -> None:
    """Raises what keeps the hub from giving the model: DownloadFailed or ModelUnavailable. Within ten seconds."""
    if monotonic() < _away_until[0]:
        raise DownloadFailed(_UNREACHABLE)
    answers: list[ServiceError | None] = []

    def look() -> None:
        try:
            from huggingface_hub import HfApi

            HfApi(token=token or None).model_info(repository, revision=revision, timeout=_ANSWER_S)
        except Exception as error:  # noqa: BLE001 (translated, and raised by who waits)
            answers.append(translate(error))
        else:
            answers.append(None)

    asking = threading.Thread(target=look, daemon=True)
    asking.start()
    asking.join(_REACH_S)
    answer = answers[0] if answers else DownloadFailed(_UNREACHABLE)
    if isinstance(answer, DownloadFailed):
        _away_until[0] = monotonic() + _REMEMBERED_S
        raise DownloadFailed(_UNREACHABLE) from answer
    if answer is not None:
        raise ModelUnavailable(_REFUSED) from answer
