"""The sound tracks of a recording: their list for people, and the one that is decoded. Part of the decoder.

The same file and options always give the same track: an attempt that resumes counts on it.
"""

import re
from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition

from audio.kinds import CODECS
from audio.mix import Mixer
from audio.sink import SAMPLE_RATE, Options, Refusal
from languages import language_code

LISTED = 32  # tracks; a file may have more
TITLE_LENGTH = 80  # characters
LOOKED_AT = 10 * 60 * SAMPLE_RATE  # samples of each track, until it counts as silent
AUDIBLE = 33  # of 32768; 60 dB below full scale
Reopen = Callable[[], AbstractContextManager[InputContainer]]


def listed(streams: Sequence[AudioStream]) -> list[dict[str, Any]]:
    return [_described(number, stream) for number, stream in enumerate(streams[:LISTED])]


def _described(number: int, stream: AudioStream) -> dict[str, Any]:
    return {
        "index": number,
        "language": _language(stream),
        "title": _plain(stream.metadata.get("title", "")) or None,
        "channels": getattr(stream.codec_context, "channels", None),  # PyAV's types forget: there may be no decoder
        "default": bool(stream.disposition & Disposition.default),
    }


def _language(stream: AudioStream) -> str | None:
    """As this service calls it; where Whisper does not know it, as the file does."""
    tag = _plain(stream.metadata.get("language", ""))
    try:
        return language_code(tag)
    except ValueError:
        return tag


def _plain(text: str) -> str:
    """A stranger's words: printable, on one line, and not many."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:TITLE_LENGTH]


def choose(container: InputContainer, options: Options, reopen: Reopen) -> tuple[int, list[dict[str, str]]]:
    """The number of the track among those with sound, and what to warn of. Raises Refusal."""
    streams = container.streams.audio
    if not streams:
        what = "video but no sound" if container.streams.video else "no sound"
        raise Refusal("no_audio_stream", f"The file holds {what}. Send one with a sound track.")
    if options.track:
        number = _asked_for(streams, options.track)
        _check_decoder(container, streams[number])
        return number, []
    candidates = [number for number in _in_order(streams, options.language) if _has_decoder(streams[number])]
    if not candidates:
        _check_decoder(container, streams[0])
    first, chosen = candidates[0], _first_with_sound(candidates, reopen)
    return chosen, _warnings(first, chosen)


def _asked_for(streams: Sequence[AudioStream], wanted: str) -> int:
    if wanted.isdecimal():
        matching = [int(wanted)] if int(wanted) < len(streams) else []
    else:
        matching = _spoken_in(streams, wanted)
    if not matching:
        there = "; ".join(_in_words(track) for track in listed(streams))
        raise Refusal("no_such_track", f"There is no sound track {_plain(wanted)!r}. The file has {there}.")
    return matching[0]


def _in_words(track: dict[str, Any]) -> str:
    named = [track["language"], track["title"]]
    return f"{track['index']} ({', '.join(filter(None, named)) or 'without a language'})"


def _spoken_in(streams: Sequence[AudioStream], language: str) -> list[int]:
    """Those that are marked first."""
    try:
        wanted = language_code(language) or ""
    except ValueError:
        wanted = language.strip().lower()
    found = [number for number, stream in enumerate(streams) if wanted and _language(stream) == wanted]
    return sorted(found, key=lambda number: not streams[number].disposition & Disposition.default)


def _in_order(streams: Sequence[AudioStream], language: str) -> list[int]:
    """As they are to be tried: the one that is marked, the one in the language asked for, the others."""
    marked = [number for number, stream in enumerate(streams) if stream.disposition & Disposition.default]
    told_apart = marked if len(marked) < len(streams) else []  # a mark on every track says nothing
    return list(dict.fromkeys([*told_apart[:1], *_spoken_in(streams, language), *range(len(streams))]))


def _has_decoder(stream: AudioStream) -> bool:
    return getattr(stream.codec_context, "name", None) in CODECS


def _check_decoder(container: InputContainer, stream: AudioStream) -> None:
    if _has_decoder(stream):
        return
    codec = getattr(stream.codec_context, "name", None) or _name_of_codec(container, stream)
    how = f"as {codec}" if codec else "in a way that it does not name"
    message = (
        f"The sound is coded {how}, for which this service has no decoder. Send it as MP3, AAC, Opus, FLAC or WAV."
    )
    raise Refusal("codec_missing", message)


def _name_of_codec(container: InputContainer, stream: AudioStream) -> str:
    """PyAV knows no codec without a decoder; ffmpeg names it in its summary."""
    av.logging.set_level(av.logging.INFO)
    summary = container.dumps_format()  # type: ignore[attr-defined]
    av.logging.set_level(None)
    line = re.search(rf"Stream #0:{stream.index}\b[^\n]*?: Audio: (\w+)(?: \(([ -~]{{1,8}}) / 0x)?", summary)
    codec, tag = line.groups() if line else ("none", None)
    return " ".join(filter(None, ["" if codec == "none" else codec, f"({_plain(tag)})" if tag else ""]))


def _first_with_sound(candidates: list[int], reopen: Reopen) -> int:
    """The first of them if all are silent. Reads no further than the first sound where the first has it."""
    if len(candidates) == 1:
        return candidates[0]
    looks = {number: _Look() for number in candidates}
    with reopen() as container:
        streams = container.streams.audio
        numbers = {stream.index: number for number, stream in enumerate(streams)}
        for stream in container.streams:
            if numbers.get(stream.index) not in looks:
                stream.discard = Discard.all
        for packet in _readable(container, [streams[number] for number in candidates]):
            looks[numbers[packet.stream.index]].at(packet)
            if looks[candidates[0]].heard or all(look.is_over for look in looks.values()):
                break
    return next((number for number in candidates if looks[number].heard), candidates[0])


def _readable(container: InputContainer, streams: list[AudioStream]) -> Any:
    """Packets until the first fault: the decoding proper says what is wrong."""
    try:
        yield from container.demux(streams)
    except MemoryError:
        raise
    except av.FFmpegError:
        return


class _Look:
    """At one track, until it is heard or has been silent for long."""

    def __init__(self) -> None:
        self._mixer = Mixer()
        self._samples = 0
        self.heard = False

    @property
    def is_over(self) -> bool:
        return self.heard or self._samples >= LOOKED_AT

    def at(self, packet: Any) -> None:
        if self.is_over:
            return
        try:
            pieces = [array("h", bytes(pcm)) for frame in packet.decode() for pcm in self._mixer.feed(frame)]
        except MemoryError:
            raise
        except (av.FFmpegError, Refusal):
            return
        self._samples += sum(map(len, pieces))
        self.heard = any(max(piece) >= AUDIBLE or min(piece) <= -AUDIBLE for piece in pieces if piece)


def _warnings(first: int, chosen: int) -> list[dict[str, str]]:
    if first == chosen:
        return []
    message = f"Sound track {first} is silent: track {chosen} was transcribed. Choose another with audio_track."
    return [{"code": "audio_track_silent", "message": message}]
