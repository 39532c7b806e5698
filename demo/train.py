"""Trains the demo model and exports it: `python -m demo.train --work FOLDER`.

Needs torch, transformers, tokenizers, ctranslate2, and espeak-ng, flite and ffmpeg on PATH.
The corpus and the checkpoint stay in --work; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from demo import corpus, tokens
from demo.network import POSITIONS, Network, Output
from demo.windows import IGNORED, Batch, Composer

Records = dict[str, list[corpus.Record]]

PHONEMES = 256  # room in the phoneme head
PEAK_RATE = 1.5e-3
REPORT_S = 10
SAVE_S = 120


@dataclass(frozen=True, slots=True)
class Stage:
    until: float  # share of the training's duration
    sizes: tuple[tuple[int, int], ...]  # (encoder frames, windows in a batch), one drawn a step


STAGES = (
    Stage(0.20, ((150, 24), (200, 18), (250, 16))),
    Stage(0.30, ((200, 18), (250, 16), (250, 16), (500, 8))),
    Stage(1.00, ((250, 16), (500, 8), (POSITIONS, 4), (POSITIONS, 4))),  # whole windows are what takes long to learn
)


def learning_rate(share: float, step: int) -> float:
    """Warm-up, flat for the first half, then straight to zero."""
    return PEAK_RATE * min(1.0, (step + 1) / 100, 2 * (1 - share) + 0.01)


def batch_sizes(rng: Random, share: float) -> tuple[int, int]:
    stage = next((s for s in STAGES if share < s.until), STAGES[-1])
    return rng.choice(stage.sizes)


def attention_loss(weights: Tensor, spans: Tensor) -> Tensor:
    """-log of the attention that falls into the span of each token."""
    frames = weights.shape[-1]
    at = torch.arange(frames, device=weights.device)
    begin, end = spans[..., :1].clamp(min=0), spans[..., 1:].clamp(max=frames)
    known = (spans[..., 0] > -50) & (spans[..., 1] > 2) & (end > begin)[..., 0]
    inside = (at >= begin) & (at <= end)
    mass = (weights.mean(1) * inside).sum(-1)
    return -(mass[known] + 1e-4).log().mean() if known.any() else weights.new_zeros(())


def word_loss(network: Network, out: Output, batch: Batch) -> Tensor:
    """Each word is to be read off the encoder's frame in the middle of it, with no decoder."""
    frames = out.memory.shape[1]
    middle = batch.spans.sum(-1) // 2
    known = (batch.spans[..., 1] > 2) & (middle >= 0) & (middle < frames) & (batch.targets >= 0)
    rows = known.nonzero()[:, 0]
    if not len(rows):
        return out.memory.new_zeros(())
    states = network.word_head(out.memory[rows, middle[known]])
    return F.cross_entropy(network.logits(states), batch.targets[known])


def losses(network: Network, batch: Batch, share: float) -> dict[str, Tensor]:
    out = network(batch.mel, batch.positions, batch.ids)
    wanted = batch.targets != IGNORED
    text = F.cross_entropy(network.logits(out.states[wanted]), batch.targets[wanted])
    phoneme = F.cross_entropy(out.phonemes.flatten(0, 1), batch.phonemes.flatten())
    word = word_loss(network, out, batch)
    said = F.pad(batch.spans, (0, 0, 1, 0), value=-99)[:, :-1]
    attention = attention_loss(out.attention[0], said)  # where the last word was
    attention = attention + sum(attention_loss(m, batch.spans) for m in out.attention[1:])
    guidance = (1.0 - 0.8 * share) * phoneme + 0.5 * word + 0.2 * attention
    return {
        "loss": text + guidance,
        "text": text,
        "phoneme": phoneme,
        "word": word,
        "attention": attention,
    }


class Batches(IterableDataset[Batch]):
    """Batches without end, composed in the loader's processes; `share` tells them which stage it is."""

    def __init__(self, records: Records, narrow: tokens.Narrow, seed: int, scale: int) -> None:
        self._records, self._narrow, self._seed, self._scale = records, narrow, seed, scale
        self.share = torch.zeros(1).share_memory_()

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        seed = self._seed * 1009 + (worker.id if worker else 0)
        composer, rng = Composer(self._records, self._narrow, seed), Random(seed)
        while True:
            frames, size = batch_sizes(rng, float(self.share))
            yield composer.batch(size * self._scale, frames)


def steps(args: argparse.Namespace, batches: Batches, done: float) -> Iterator[tuple[float, Batch]]:
    """Batches with the share of the training that is done, until the time or this run's part is up."""
    loader = DataLoader(batches, batch_size=None, num_workers=args.processes, prefetch_factor=4)
    begun = time.monotonic() - done * args.minutes * 60
    batches.share.fill_(done)
    for batch in loader:
        share = (time.monotonic() - begun) / (args.minutes * 60)
        if share >= min(1.0, done + args.part):
            return
        batches.share.fill_(share)
        yield share, batch


def save(network: Network, optimiser: torch.optim.Optimizer, share: float, file: Path) -> None:
    state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "share": share}
    torch.save(state, file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)


def restore(network: Network, optimiser: torch.optim.Optimizer, file: Path) -> float:
    """The share of the training that is done: 0 where there is no checkpoint."""
    if not file.exists():
        return 0.0
    state = torch.load(file, map_location=next(network.parameters()).device)
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    return float(state["share"])


def step_once(network: Network, optimiser: torch.optim.Optimizer, batch: Batch, share: float) -> dict[str, Tensor]:
    parts = losses(network, batch, share)
    optimiser.zero_grad()
    parts["loss"].backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    network.fix_feature()
    return parts


def fit(args: argparse.Namespace, records: Records, narrow: tokens.Narrow) -> Network:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network: Network = Network(narrow.count, PHONEMES, narrow.time(0)).to(device)
    learned = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    file = args.work / "checkpoint.pt"
    share = restore(network, optimiser, file)
    batches = Batches(records, narrow, args.seed + round(1000 * share), args.scale)
    saved = shown = time.monotonic()
    for step, (share, batch) in enumerate(steps(args, batches, share)):  # noqa: B020
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(share, step)
        parts = step_once(network, optimiser, batch.to(device), share)
        if time.monotonic() - shown > REPORT_S:
            shown = time.monotonic()
            figures = " ".join(f"{k} {v.item():.3f}" for k, v in parts.items())
            print(f"{share:.3f} step {step} frames {batch.phonemes.shape[1]} {figures}", flush=True)
        if time.monotonic() - saved > SAVE_S:
            saved = time.monotonic()
            save(network, optimiser, share, file)
    save(network, optimiser, min(1.0, share + 1e-3), file)
    return network


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the corpus and the checkpoint")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--minutes", type=float, default=210, help="duration of the training")
    parser.add_argument("--part", type=float, default=1.0, help="share of it to do in this run")
    parser.add_argument("--shards", type=int, default=160, help=f"of {corpus.SHARD} phrases each")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that speak and compose")
    parser.add_argument("--scale", type=int, default=1, help="times the batch size: 4 on a GPU")
    parser.add_argument("--no-export", action="store_true", help="leave the checkpoint: no ctranslate2 here")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    folder = args.work / "corpus"
    corpus.make(folder, shards=args.shards, seed=args.seed, processes=args.processes)
    narrow = tokens.Narrow(tokens.build())
    network = fit(args, corpus.read(folder, args.shards, {}), narrow)
    if not args.no_export:
        from demo import export

        export.export({k: v.cpu() for k, v in network.state_dict().items()}, args.out)


if __name__ == "__main__":
    main()
