"""Training windows: utterances placed in 30 s, augmented, with Whisper's token sequences.

Owns the rules of the targets: when a pause parts two segments, what silence yields, what a
window cut at its end yields. Features are those of faster-whisper: zeros after the audio's end.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import chain
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from demo import speech, tokens
from demo.corpus import Record
from demo.network import POSITIONS, TEXT_POSITIONS

SEGMENT_PAUSE = 0.4  # seconds: a longer one parts two segments
LAST_INITIAL_TIME = 50  # 1.0 s: faster-whisper's default bound for the first time token
IGNORED = -100
FLOOR = -10.0  # log10 power of digital silence


@dataclass(slots=True)
class Word:
    ids: list[int]
    start: float  # seconds in the 30 s; both below zero where unknown
    end: float


@dataclass(slots=True)
class Segment:
    start: float
    end: float
    words: list[Word] = field(default_factory=list)
    english: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Window:
    mel: npt.NDArray[np.float32]  # 2n x 80, log10 power
    phonemes: npt.NDArray[np.int64]  # n
    audio_end: int  # mel frames; zeros follow
    first: int  # encoder frame of the 30 s at which it begins
    ids: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)  # encoder frames to attend to
    silent: bool = False


@dataclass(slots=True)
class Batch:
    mel: Tensor
    positions: Tensor
    phonemes: Tensor
    ids: Tensor
    targets: Tensor
    spans: Tensor

    def to(self, device: str) -> Batch:
        return Batch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


class Composer:
    def __init__(self, records: dict[str, list[Record]], narrow: tokens.Narrow, seed: int) -> None:
        self._records = records
        self._narrow = narrow
        self._rng = Random(seed)
        self._noises = noise_bank(np.random.default_rng(seed))
        self._codes = list(records)
        self._shares = [len(r) ** 0.7 for r in records.values()]
        self._torch = torch.Generator().manual_seed(seed)

    def batch(self, size: int, frames: int) -> Batch:
        windows = [self._window(frames) for _ in range(size)]
        longest = max(len(w.ids) for w in windows)
        end = self._narrow.special(tokens.TEXT_END)

        def padded(rows: list[list[int]], value: int) -> Tensor:
            return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

        spans = [w.spans + [(-1, -1)] * (longest - len(w.spans)) for w in windows]
        firsts = torch.tensor([w.first for w in windows])
        return Batch(
            self._features(windows),
            firsts[:, None] + torch.arange(frames),
            torch.from_numpy(np.stack([w.phonemes for w in windows])),
            padded([w.ids for w in windows], end),
            padded([w.targets for w in windows], IGNORED),
            torch.tensor(spans),
        )

    # Placing

    def _window(self, frames: int) -> Window:
        rng = self._rng
        whole = frames == POSITIONS
        first = 0 if whole or rng.random() < 0.6 else rng.randrange(POSITIONS - frames + 1)
        mel = np.full((2 * frames, 80), FLOOR, np.float32)
        window = Window(mel, np.zeros(frames, np.int64), 2 * frames, first)
        code = rng.choices(self._codes, self._shares)[0]
        if rng.random() < 0.08:
            window.silent = True
            window.audio_end = rng.randrange(2, 2 * frames + 1) if rng.random() < 0.5 else 2 * frames
            self._write(window, code, [], None)
            return window
        segments, cut = self._place(window, code)
        self._write(window, code, segments, cut)
        return window

    def _place(self, window: Window, code: str) -> tuple[list[Segment], float | None]:
        """Phrases with pauses up to a random end; the start of a phrase cut there, if one is."""
        rng = self._rng
        frames = len(window.phonemes)
        whole = frames == POSITIONS
        length = frames * 0.02
        origin = window.first * 0.02
        filled = rng.random() < (0.65 if whole else 0.6)
        until = length if filled else rng.uniform(1.0, min(length, 10.0))
        dense = rng.choice([0.0, 0.3, 0.9])
        mixed = rng.random() < 0.03
        at = rng.choice([rng.uniform(0, 0.2), rng.uniform(0, 1.0), rng.uniform(0, length / 4)])
        segments: list[Segment] = []
        while True:
            spoken = rng.choice(self._records[rng.choice(self._codes) if mixed else code])
            duration = len(spoken.mel) * 0.01
            if at + duration > until:
                if segments and not (filled and whole and rng.random() < 0.3):
                    break
                if at + duration > length:
                    if not segments:
                        at = 0.0
                        if duration <= length:
                            continue
                        self._put(window, spoken, 0.0, segments, origin)
                        return self._kept(segments, origin + length), None
                    if at + spoken.start > length - 0.1:
                        break
                    self._put(window, spoken, at, segments, origin)
                    return self._cut(segments, origin + length)
            at = round(at, 2)
            self._put(window, spoken, at, segments, origin)
            at += duration
            joined = rng.random() < dense
            # The utterances bring 0.1 s of silence along.
            at += rng.uniform(-0.08, 0.1) if joined else rng.choice([rng.uniform(0.42, 0.8), rng.uniform(0.42, 4.0)])
        if not filled or rng.random() < 0.5:
            tail = rng.choice([0.0, rng.uniform(0, 0.3), rng.uniform(0, 2.0)])
            last = max(s.end for s in segments) - origin
            window.audio_end = min(2 * frames, max(2, round(100 * (last + tail))))
        return segments, None

    def _put(self, window: Window, spoken: Record, at: float, segments: list[Segment], origin: float) -> None:
        frame = round(at * 100) // 2 * 2
        at = frame / 100
        room = len(window.mel) - frame
        gain = self._rng.uniform(-0.4, 0.4)
        target = window.mel[frame : frame + len(spoken.mel)]
        np.maximum(target, spoken.mel[:room] + gain, out=target)
        labels = window.phonemes[frame // 2 : frame // 2 + len(spoken.phonemes)]
        labels[:] = spoken.phonemes[: room // 2]
        self._append(segments, spoken, origin + at)

    def _append(self, segments: list[Segment], spoken: Record, at: float) -> None:
        ids = self._narrow.words(spoken.phrase.text)
        times = spoken.words or [(-1e9, -1e9)] * len(ids)
        start = at + spoken.start
        if not segments or start - segments[-1].end >= SEGMENT_PAUSE:
            segments.append(Segment(start, start))
        last = 0.0
        for word, (begin, end) in zip(ids, times, strict=True):
            if last and begin - last >= SEGMENT_PAUSE and begin > 0:
                segments[-1].end = at + last
                segments.append(Segment(at + begin, at + begin))
            segments[-1].words.append(Word(word, at + begin, at + end))
            last = end
        segments[-1].end = at + spoken.end
        segments[-1].english += chain.from_iterable(self._narrow.words(spoken.phrase.english))

    @staticmethod
    def _kept(segments: list[Segment], limit: float) -> list[Segment]:
        """A single phrase longer than the window: the words that are whole in it."""
        for segment in segments:
            segment.words = [w for w in segment.words if w.end <= limit]
            segment.end = min(segment.end, max([w.end for w in segment.words], default=limit))
            segment.english = []
        return [s for s in segments if s.words and s.start < limit]

    def _cut(self, segments: list[Segment], limit: float) -> tuple[list[Segment], float | None]:
        whole = [s for s in segments if s.end <= limit]
        broken = next((s for s in segments if s.end > limit), None)
        if whole and broken is not None and broken.start < limit - 0.1:
            return whole, broken.start
        return self._kept(segments, limit), None

    # Targets

    def _write(self, window: Window, code: str, segments: list[Segment], cut: float | None) -> None:
        rng, narrow = self._rng, self._narrow
        translate = code != "en" and all(s.english for s in segments) and rng.random() < 0.18
        language = narrow.special(tokens.language_token(code))
        other = rng.random() < (0.5 if not segments else 0.02)
        shown = narrow.special(tokens.language_token(self._any_language())) if other else language
        start = narrow.special(tokens.START)
        task = narrow.special(tokens.TRANSLATE if translate else tokens.TRANSCRIBE)
        ids = [*self._prompt(len(window.mel)), start, shown, task]
        targets = [IGNORED] * len(ids)
        targets[-3] = narrow.special(tokens.NO_SPEECH) if window.silent else language
        spans = [(-1, -1)] * len(ids)
        body: list[tuple[int, tuple[int, int]]] = []
        timed = rng.random() < 0.5
        if not timed:
            ids.append(narrow.special(tokens.NO_TIMESTAMPS))
            targets.append(IGNORED)
            spans.append((-1, -1))
        body = self._body(window, segments, cut, timed=timed, translate=translate)
        room = TEXT_POSITIONS - len(ids)
        for token, span in body[:room]:
            targets[-1], spans[-1] = token, span
            ids.append(token)
            targets.append(IGNORED)
            spans.append((-1, -1))
        if len(body) < room:
            targets[-1] = narrow.special(tokens.TEXT_END)
        window.ids, window.targets, window.spans = ids, targets, spans

    def _any_language(self) -> str:
        code: str = self._rng.choice(tokens.LANGUAGE_CODES)
        return code

    def _body(
        self,
        window: Window,
        segments: list[Segment],
        cut: float | None,
        *,
        timed: bool,
        translate: bool,
    ) -> list[tuple[int, tuple[int, int]]]:
        body: list[tuple[int, tuple[int, int]]] = []

        def tell(seconds: float) -> None:
            frame = round(seconds * 50)
            shown = frame if body else min(frame, LAST_INITIAL_TIME)
            at = frame - window.first
            body.append((self._narrow.time(shown), (at - 3, at + 3)))

        if timed and not segments:
            tell(0.0)
        for segment in segments:
            if timed:
                tell(segment.start)
            if translate:
                body += [(token, (-1, -1)) for token in segment.english]
            else:
                body += [pair for word in segment.words for pair in _spread(word, window.first)]
            if timed:
                tell(segment.end)
        if timed and cut is not None:
            tell(cut)
        return body

    def _prompt(self, frames: int) -> list[int]:
        """Previous text, in a fifth of the windows: long only where the window is."""
        rng, narrow = self._rng, self._narrow
        if rng.random() > 0.2:
            return []
        size = rng.randint(1, 220 if frames > 2000 and rng.random() < 0.1 else 25)
        ids: list[int] = []
        while len(ids) < size:
            if rng.random() < 0.1:
                ids += [rng.randrange(narrow.texts) for _ in range(rng.randint(1, 8))]
            else:
                said = rng.choice(self._records[rng.choices(self._codes, self._shares)[0]])
                ids += chain.from_iterable(narrow.words(said.phrase.text))
        return [narrow.special(tokens.START_OF_PREVIOUS), *ids[-size:]]

    # Features

    def _uniform(self, size: int, low: float, high: float) -> Tensor:
        return torch.empty(size, 1, 1).uniform_(low, high, generator=self._torch)

    def _features(self, windows: list[Window]) -> Tensor:
        size = len(windows)
        x = torch.from_numpy(np.stack([w.mel for w in windows]))
        bands = torch.arange(80.0)
        x = x + self._uniform(size, -2.0, 0.4)
        tilt = self._uniform(size, -0.5, 0.5) * (self._uniform(size, 0, 1) < 0.3)
        x = x + tilt * (bands / 40 - 1)
        x = self._noisy(windows, x)
        low, high = self._uniform(size, 30, 80), self._uniform(size, 0, 12)
        x = x - 4.0 * (bands > low) * (self._uniform(size, 0, 1) < 0.25)
        x = x - 2.0 * (bands < high) * (self._uniform(size, 0, 1) < 0.15)
        x = x.clamp(min=FLOOR)
        ends = torch.tensor([w.audio_end for w in windows])[:, None, None]
        inside = torch.arange(x.shape[1])[None, :, None] < ends
        peak = torch.where(inside, x, FLOOR).amax((1, 2), keepdim=True)
        peak = peak + self._uniform(size, 0, 1.0) * (self._uniform(size, 0, 1) < 0.3)
        x = torch.maximum(x, peak - 8) / 4 + 1
        return (x * inside).transpose(1, 2).contiguous()

    def _noisy(self, windows: list[Window], x: Tensor) -> Tensor:
        """With noise at a random distance below the speech, or with none."""
        size, frames = x.shape[:2]
        noise = torch.empty_like(x)
        for row in noise:
            kind = self._rng.choice(self._noises)
            start = self._rng.randrange(len(kind) - frames + 1)
            row.copy_(kind[start : start + frames])
        level = x.amax((1, 2), keepdim=True) - 0.5
        level = level - self._uniform(size, 1.5, 5.0)
        level[self._uniform(size, 0, 1) < 0.65] = FLOOR - 4
        silent = torch.tensor([w.silent for w in windows])[:, None, None]
        alone = self._uniform(size, -9.0, 2.0) - 12 * (self._uniform(size, 0, 1) < 0.15)
        noise += torch.where(silent, alone, level)
        return torch.logaddexp(x * np.log(10), noise * np.log(10)) / np.log(10)


def _spread(word: Word, first: int) -> list[tuple[int, tuple[int, int]]]:
    """The ids of a word, each with its share of the word's frames."""
    if word.end < 0:
        return [(token, (-1, -1)) for token in word.ids]
    begin, end = word.start * 50 - first, word.end * 50 - first
    step = (end - begin) / len(word.ids)
    bounds = [begin + i * step for i in range(len(word.ids) + 1)]
    return [(token, (round(a) - 2, round(b) + 2)) for token, a, b in zip(word.ids, bounds, bounds[1:], strict=False)]


def noise_bank(rng: np.random.Generator, seconds: int = 62) -> list[Tensor]:
    """log10 mel power of hisses, hums, tones and clicks, each with its loudest band near 0."""
    count = seconds * speech.RATE
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hertz = np.maximum(np.arange(len(spectrum)) / seconds, 20)
    at = np.arange(count) / speech.RATE
    sounds = [np.fft.irfft(spectrum * hertz**-slope, count) for slope in (0, 0, 0.5, 0.5, 1.0)]
    for base in (50, 60, 100, 120):
        hum = sum(np.sin(2 * np.pi * base * k * at) / k for k in range(1, rng.integers(2, 9)))
        sounds.append(hum + 10 ** rng.uniform(-4, -1) * rng.standard_normal(count))
    for _ in range(2):
        notes = np.repeat(rng.uniform(100, 4000, count // 4000), 4000)
        on = np.repeat(rng.random(len(notes) // 4000) < 0.5, 4000)
        sounds.append(np.sin(2 * np.pi * np.cumsum(notes) / speech.RATE) * on)
    sounds.append((rng.random(count) < 2e-4) * rng.standard_normal(count))
    mels = [speech.log_mel(np.asarray(s, np.float32)).astype(np.float32) for s in sounds]
    return [torch.from_numpy(mel - np.percentile(mel, 99)) for mel in mels]
