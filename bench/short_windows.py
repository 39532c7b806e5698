"""What SHORT_WINDOWS does to the text: the same windows of speech, whole and cut, by the bundled model.

`python -m bench.short_windows`. Windows begin and end anywhere, often within a word: harder than what a job sends.
"""

import argparse
from dataclasses import replace
from itertools import chain
from pathlib import Path
from random import Random

import numpy as np

from audio.decode import open_audio
from bench.measure import Report, head
from bench.sounds import Samples
from config import Settings
from engines import SAMPLE_RATE, Model, open_engine
from tests.speech import word_errors
from transcript import DecodeOptions

FOLDER = Path(__file__).parents[1] / "demo" / "samples"
SPOKEN = {
    "english.wav": "en",
    "english-minute.webm": "en",
    "british.m4a": "en",
    "german.mp3": "de",
    "french.ogg": "fr",
    "spanish.webm": "es",
}
LENGTHS_S = (2, 3, 5, 10, 20)
GREEDY = DecodeOptions(language="en", temperature=0.0, beam_size=1)
Heard = tuple[str, str]  # from the whole window, from the cut one


def model(*, short_windows: bool) -> Model:
    return open_engine(Settings(device="cpu", short_windows=short_windows)).load("demo", "default")


def sound_of(name: str) -> Samples:
    with open_audio(FOLDER / name) as audio:
        return np.concatenate(list(audio.blocks()))


def hear(whole: Model, cut: Model, name: str, seconds: int, count: int) -> list[Heard]:
    sound, random = sound_of(name), Random(f"{name} {seconds}")
    length, options = seconds * SAMPLE_RATE, replace(GREEDY, language=SPOKEN[name])
    starts = [random.randrange(len(sound) - length) for _ in range(count)] if len(sound) > length else []
    windows = [sound[start : start + length] for start in starts]
    return [(_text(whole, window, options), _text(cut, window, options)) for window in windows]


def _text(model: Model, window: Samples, options: DecodeOptions) -> str:
    return "".join(segment.text for segment in model.transcribe([window], options)[0])


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.short_windows", description=__doc__)
    parser.add_argument("--windows", type=int, default=20, help="of each length from each recording")
    given = parser.parse_args()
    report = Report("short_windows")
    print(head())
    whole, cut = model(short_windows=False), model(short_windows=True)
    for seconds in LENGTHS_S:
        heard = list(chain.from_iterable(hear(whole, cut, name, seconds, given.windows) for name in SPOKEN))
        edits = [word_errors(first, second) for first, second in heard]
        words, wrong = sum(count for _, count in edits), sum(wrong for wrong, _ in edits)
        changed = sum(first != second for first, second in heard)
        report.note(seconds=seconds, windows=len(heard), changed=changed, words=words, words_changed=wrong)
    report.write()


if __name__ == "__main__":
    main()
