"""Transcript, Segment, Word: the value that every room speaks. Times are seconds from the start of the recording."""

from dataclasses import dataclass, field, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Word:
    word: str  # with its leading space, as Whisper gives it
    start: float
    end: float
    probability: float

    def shifted(self, by_s: float) -> Self:
        return replace(self, start=round(self.start + by_s, 3), end=round(self.end + by_s, 3))


@dataclass(frozen=True, slots=True)
class Segment:
    start: float
    end: float
    text: str
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    compression_ratio: float = 0.0
    temperature: float = 0.0
    tokens: tuple[int, ...] = ()
    words: tuple[Word, ...] | None = None  # None: not asked for

    def shifted(self, by_s: float) -> Self:
        words = None if self.words is None else tuple(word.shifted(by_s) for word in self.words)
        return replace(self, start=round(self.start + by_s, 3), end=round(self.end + by_s, 3), words=words)


@dataclass(frozen=True, slots=True)
class Language:
    code: str  # as Whisper names it: "en", "de"
    probability: float


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What a caller may ask of the engine; part of a job for ever, so that a replay can use it."""

    language: str | None = None  # None: detect
    task: str = "transcribe"
    word_timestamps: bool = False
    initial_prompt: str | None = None
    hotwords: str | None = None
    vad_filter: bool = True
    temperature: float | None = None  # None: 0 with Whisper's fallback steps
    beam_size: int = 5


@dataclass(frozen=True, slots=True)
class Transcript:
    text: str
    segments: tuple[Segment, ...] = field(default=())
    language: Language | None = None
    duration: float = 0.0


# Codes and names as Whisper has them (openai/whisper, tokenizer.py).
LANGUAGES = dict(
    pair.split(":")
    for pair in (
        "en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese pt:portuguese "
        "tr:turkish pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian id:indonesian hi:hindi fi:finnish "
        "vi:vietnamese he:hebrew uk:ukrainian el:greek ms:malay cs:czech ro:romanian da:danish hu:hungarian ta:tamil "
        "no:norwegian th:thai ur:urdu hr:croatian bg:bulgarian lt:lithuanian la:latin mi:maori ml:malayalam cy:welsh "
        "sk:slovak te:telugu fa:persian lv:latvian bn:bengali sr:serbian az:azerbaijani sl:slovenian kn:kannada "
        "et:estonian mk:macedonian br:breton eu:basque is:icelandic hy:armenian ne:nepali mn:mongolian bs:bosnian "
        "kk:kazakh sq:albanian sw:swahili gl:galician mr:marathi pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba "
        "so:somali af:afrikaans oc:occitan ka:georgian be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic "
        "yi:yiddish lo:lao uz:uzbek fo:faroese ht:haitian_creole ps:pashto tk:turkmen nn:nynorsk mt:maltese "
        "sa:sanskrit lb:luxembourgish my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar haw:hawaiian "
        "ln:lingala ha:hausa ba:bashkir jw:javanese su:sundanese yue:cantonese"
    ).split()
)
LANGUAGES["ht"] = "haitian creole"
