"""Frames of any rate, format and layout as 16 kHz s16: mixed to one channel that cannot cancel itself, or side by side.

Where rate, format or layout change on the way, it starts anew. Never loads numpy: it takes as long as a clip.
"""

import struct
from array import array
from collections.abc import Iterator
from functools import cache

import av
from av.audio.frame import AudioFrame
from av.filter.graph import Graph

from audio.sink import SAMPLE_RATE, Refusal

BLOCK = 1600  # samples of output for which one mix is chosen; 0.1 s
MEMORY = 0.5  # of the energy before, a block: a few tenths of a second
CANCELLED = 4.0  # times louder must the difference be than the sum, 6 dB, before it is taken
FADE = 160  # samples, from one mix to the other; 10 ms
Steps = list[tuple[str, str]]  # filters of ffmpeg and their arguments


class Mixer:
    """`feed(frame)` and `drain()` yield s16le, mono, or `apart` channels interleaved. Raises Refusal."""

    def __init__(self, *, apart: int | None = None) -> None:
        self._apart = apart
        self._choice = _Choice()
        self._shape: tuple[str, str, int, int] | None = None
        self._graph: Graph | None = None
        self._is_chosen = False  # between two mixes, block by block

    def feed(self, frame: AudioFrame) -> Iterator[bytes | memoryview]:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate, frame.layout.nb_channels)
        if shape != self._shape:
            yield from self.drain()
            self._shape = shape
        if self._graph is None:
            self._begin(*shape)
        frame.pts = None  # the clock has had its say
        yield from self._push(frame)

    def drain(self) -> Iterator[bytes | memoryview]:
        """All that is still on its way; the next frame begins anew."""
        yield from self._push(None)
        self._graph = None

    def _begin(self, sample_format: str, layout: str, rate: int, channels: int) -> None:
        try:
            steps = _steps(layout, channels, apart=self._apart)
            self._graph = _graph(sample_format, layout, rate, steps)
        except MemoryError:
            raise
        except av.FFmpegError:
            message = "The sound has a sample rate or an arrangement of channels that we cannot mix."
            raise Refusal("undecodable_audio", message) from None
        self._is_chosen = self._apart is None and channels > 1

    def _push(self, frame: AudioFrame | None) -> Iterator[bytes | memoryview]:
        if self._graph is None:
            return
        self._graph.push(frame)
        while True:
            try:
                piece = self._graph.pull()
            except (BlockingIOError, EOFError):  # wants more, or has been drained
                return
            assert isinstance(piece, AudioFrame)
            yield self._choice.of(piece) if self._is_chosen else _bytes(piece, 0, self._apart or 1)


class _Choice:
    """Between the sum of the channels and their difference: what is wired the wrong way cancels itself in the sum."""

    def __init__(self) -> None:
        self._energies = [0.0, 0.0]  # of sum and difference
        self._chosen = 0

    def of(self, block: AudioFrame) -> bytes | memoryview:
        before = self._chosen
        levels = [float(block.metadata.get(f"lavfi.astats.{number}.RMS_level", "nan")) for number in (1, 2)]
        if all(level < 1 for level in levels):  # dB of full scale; not a number: nothing is learned
            mixes = zip(self._energies, levels, strict=True)
            self._energies = [energy * MEMORY + block.samples * 10 ** (level / 10) for energy, level in mixes]
        louder = CANCELLED if before == 0 else 1.0
        if self._energies[1 - before] > louder * self._energies[before]:
            self._chosen = 1 - before
        chosen = _bytes(block, self._chosen)
        return chosen if self._chosen == before else _faded(_bytes(block, before), chosen)


def _faded(before: memoryview, after: memoryview) -> bytes:
    old, new = array("h", bytes(before)), array("h", bytes(after))
    for at in range(min(FADE, len(new))):
        new[at] = (old[at] * (FADE - at) + new[at] * at) // FADE
    return new.tobytes()


def _bytes(piece: AudioFrame, plane: int, channels: int = 1) -> memoryview:
    return memoryview(piece.planes[plane])[: piece.samples * 2 * channels]


def _graph(sample_format: str, layout: str, rate: int, steps: Steps) -> Graph:
    """PyAV's AudioResampler is such a graph too, but with a thread per core, and it knows named layouts only."""
    graph = Graph()
    graph.threads = 1
    source = {"sample_rate": str(rate), "sample_fmt": sample_format, "channel_layout": layout, "time_base": f"1/{rate}"}
    nodes = [graph.add("abuffer", **source), *(graph.add(name, arguments) for name, arguments in steps)]
    graph.link_nodes(*nodes, graph.add("abuffersink")).configure()
    return graph


def _steps(layout: str, channels: int, *, apart: int | None) -> Steps:
    if apart is not None:
        return [*_arranged(channels, apart), ("aformat", f"sample_fmts=s16:sample_rates={SAMPLE_RATE}")]
    if channels == 1 and layout == "mono":
        return [("aformat", f"sample_fmts=s16:sample_rates={SAMPLE_RATE}:channel_layouts=mono")]
    shares = _shares(layout, channels)
    if channels == 1:
        return [("pan", "mono|c0=c0"), ("aformat", f"sample_fmts=s16:sample_rates={SAMPLE_RATE}")]
    both = f"stereo|c0={_sum(shares)}|c1={_sum([share * (-1) ** at for at, share in enumerate(shares)])}"
    return [
        ("pan", both),
        ("aformat", f"sample_fmts=s16p:sample_rates={SAMPLE_RATE}"),
        ("asetnsamples", f"n={BLOCK}:p=0"),
        ("astats", "metadata=1:reset=1:measure_perchannel=RMS_level:measure_overall=none"),
    ]


def _arranged(channels: int, wanted: int) -> Steps:
    """Where a recording goes on with another number of channels: the rest is silent, or all are in the first."""
    if channels == wanted:
        return []
    kept = [f"c{at}=c{at}" for at in range(channels)]
    all_in_one = [f"c0={_sum([1 / channels] * channels)}"]
    return [("pan", "|".join([f"{wanted}c", *(kept if channels < wanted else all_in_one)]))]


def _sum(shares: list[float]) -> str:
    """In the words of the filter `pan`."""
    return "".join(f"{share:+.6f}*c{at}" for at, share in enumerate(shares))


@cache
def _shares(layout: str, channels: int) -> list[float]:
    """What each channel has in ffmpeg's own mix; equal parts where nobody says which is where."""
    if layout == f"{channels} channels":
        return [1 / channels] * channels
    graph = _graph("dbl", layout, SAMPLE_RATE, [("aformat", "sample_fmts=dbl:channel_layouts=mono")])
    impulses = AudioFrame(format="dbl", layout=layout, samples=channels)  # one channel after the other
    impulses.sample_rate = SAMPLE_RATE
    ones = (float(at % (channels + 1) == 0) for at in range(channels * channels))
    impulses.planes[0].update(struct.pack(f"{channels * channels}d", *ones))
    graph.push(impulses)
    graph.push(None)
    mixed = struct.unpack(f"{channels}d", bytes(graph.pull().planes[0])[: channels * 8])
    return [share / sum(mixed) for share in mixed]
