"""What the demo model understands: its words, and the random phrases it is trained on.

Owns the vocabulary of the four languages and the grammar that makes phrases of it.
Never touches audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

LANGUAGES = ("en", "de", "fr", "es")


@dataclass(frozen=True, slots=True)
class Phrase:
    language: str
    text: str  # lower case, words between single blanks
    english: str  # its translation; the text itself where the language is English
    spoken: str  # the text given to the synthesiser: with commas where it shall pause


def _english_number(n: int) -> str:
    if n < 20:
        return _EN_SMALL[n]
    if n == 100:
        return "one hundred"
    tens, ones = divmod(n, 10)
    return f"{_EN_TENS[tens - 2]} {_EN_SMALL[ones]}" if ones else _EN_TENS[tens - 2]


def _german_number(n: int) -> str:
    if n < 20:
        return _DE_SMALL[n]
    if n == 100:
        return "hundert"
    tens, ones = divmod(n, 10)
    head = "ein" if ones == 1 else _DE_SMALL[ones]
    return f"{head}und{_DE_TENS[tens - 2]}" if ones else _DE_TENS[tens - 2]


def _french_number(n: int) -> str:
    if n < 17:
        return _FR_SMALL[n]
    if n == 100:
        return "cent"
    tens, ones = divmod(n, 10)
    if n < 20:
        return f"dix {_FR_SMALL[ones]}"
    if tens in (7, 9):
        tens, ones = tens - 1, ones + 10
    word = _FR_TENS[tens - 2]
    if ones == 0:
        return word
    linked = "et " if ones in (1, 11) and tens != 8 else ""
    return f"{word} {linked}{_french_number(ones)}"


def _spanish_number(n: int) -> str:
    if n < 30:
        return _ES_SMALL[n]
    if n == 100:
        return "cien"
    tens, ones = divmod(n, 10)
    return f"{_ES_TENS[tens - 3]} y {_ES_SMALL[ones]}" if ones else _ES_TENS[tens - 3]


_EN_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_EN_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_DE_SMALL = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn "
    "fünfzehn sechzehn siebzehn achtzehn neunzehn"
).split()
_DE_TENS = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()
_FR_SMALL = ("zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize").split()
_FR_TENS = ["vingt", "trente", "quarante", "cinquante", "soixante", "", "quatre vingt"]
_ES_SMALL = (
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince "
    "dieciséis diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés "
    "veinticuatro veinticinco veintiséis veintisiete veintiocho veintinueve"
).split()
_ES_TENS = "treinta cuarenta cincuenta sesenta setenta ochenta noventa".split()
_NUMBER = {
    "en": _english_number,
    "de": _german_number,
    "fr": _french_number,
    "es": _spanish_number,
}

# Phrases of the three other languages with their translations.
GREETINGS: dict[str, dict[str, str]] = {
    "de": {
        "hallo": "hello",
        "hallo welt": "hello world",
        "guten morgen": "good morning",
        "guten tag": "good day",
        "guten abend": "good evening",
        "gute nacht": "good night",
        "auf wiedersehen": "goodbye",
        "danke": "thank you",
        "danke schön": "thank you",
        "vielen dank": "thank you very much",
        "bitte": "please",
        "ja": "yes",
        "nein": "no",
        "wie geht es dir": "how are you",
        "wie geht es ihnen": "how are you",
        "willkommen": "welcome",
        "das ist ein test": "this is a test",
        "bis morgen": "see you tomorrow",
        "bis bald": "see you soon",
        "ich verstehe nicht": "i do not understand",
        "mein name ist anna": "my name is anna",
        "das wetter ist heute schön": "the weather is nice today",
        "herzlichen glückwunsch": "congratulations",
    },
    "fr": {
        "bonjour": "hello",
        "bonjour le monde": "hello world",
        "bonsoir": "good evening",
        "bonne nuit": "good night",
        "bonne journée": "good day",
        "salut": "hello",
        "au revoir": "goodbye",
        "merci": "thank you",
        "merci beaucoup": "thank you very much",
        "s'il vous plaît": "please",
        "oui": "yes",
        "non": "no",
        "comment allez vous": "how are you",
        "ça va bien": "i am well",
        "bienvenue": "welcome",
        "ceci est un test": "this is a test",
        "à demain": "see you tomorrow",
        "à bientôt": "see you soon",
        "je ne comprends pas": "i do not understand",
        "je m'appelle marie": "my name is marie",
        "il fait beau aujourd'hui": "the weather is nice today",
        "félicitations": "congratulations",
    },
    "es": {
        "hola": "hello",
        "hola mundo": "hello world",
        "buenos días": "good morning",
        "buenas tardes": "good evening",
        "buenas noches": "good night",
        "adiós": "goodbye",
        "gracias": "thank you",
        "muchas gracias": "thank you very much",
        "por favor": "please",
        "sí": "yes",
        "no": "no",
        "cómo estás": "how are you",
        "estoy bien": "i am well",
        "bienvenido": "welcome",
        "bienvenidos": "welcome",
        "esto es una prueba": "this is a test",
        "hasta mañana": "see you tomorrow",
        "hasta luego": "see you soon",
        "no entiendo": "i do not understand",
        "me llamo maría": "my name is maria",
        "hoy hace buen tiempo": "the weather is nice today",
        "felicidades": "congratulations",
    },
}

ENGLISH_PHRASES = (
    "hello|hello world|hello everyone|good morning|good evening|good night|good day|goodbye|"
    "thank you|thank you very much|please|yes|no|how are you|i am well|welcome|excuse me|"
    "this is a test|this is another test|testing one two three|see you tomorrow|see you soon|"
    "i do not understand|my name is anna|my name is marie|my name is maria|my name is john|"
    "the weather is nice today|congratulations|the quick brown fox jumps over the lazy dog|"
    "please transcribe this recording|the recording is ready|the job is done|"
    "the server is running|what time is it|where are you|who is there|let us go home|"
    "this is the first recording|this is the second recording|this is the end|"
    "one moment please|i like coffee and tea|the meeting starts at nine|do not stop|"
    "it is very cold today|we work every day|happy birthday|the speech is now text|"
    "open the door please|close the window please|i love music"
).split("|")

_PEOPLE = (
    "i you we they he she|the man|the woman|the boy|the girl|the child|the dog|the cat|the bird|"
    "the horse|my mother|my father|my brother|my sister|my friend|the teacher|the doctor|"
    "our team|the worker"
)
PEOPLE = _PEOPLE.split("|", maxsplit=1)[0].split() + _PEOPLE.split("|")[1:]
VERBS = (
    "found lost opened closed moved washed painted kept took wanted liked loved sold made "
    "carried watched needed helped called stopped started used broke"
).split()
THINGS = (
    "house door window table chair book letter paper picture box car boat train apple bread milk "
    "water coffee tea fish tree flower garden river mountain city street school office phone "
    "computer machine clock key bag hat shirt music song story game ball money recording file "
    "server model message question answer"
).split()
PLURALS = (
    "houses doors windows tables chairs books letters cars boats trains apples trees flowers "
    "dogs cats birds horses children people files jobs workers hours minutes seconds days weeks "
    "months years"
).split()
ADJECTIVES = (
    "big small old new good bad cold warm fast slow long short young happy quiet loud heavy dark "
    "clean open full empty red green blue white black yellow brown nice lazy quick"
).split()
PLACES = "house garden city school office street river kitchen park station".split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = ("january february march april may june july august september october november december").split()
WHEN = "today|tomorrow|yesterday|now|again|soon|every day|at night|in the morning|on the weekend"
TIMES = WHEN.split("|")
GLUE = "and or with the a in on at is are was not very this that there here all more first last "
GLUE += "find take use move close"


def english_words() -> list[str]:
    """Every English word the grammar can say."""
    numbers = " ".join(_english_number(n) for n in range(101))
    parts = [*ENGLISH_PHRASES, *PEOPLE, *VERBS, *THINGS, *PLURALS, *ADJECTIVES, *PLACES]
    parts += [*DAYS, *MONTHS, *TIMES, GLUE, numbers, *GREETINGS_ENGLISH]
    return sorted({word for part in parts for word in part.split()})


GREETINGS_ENGLISH = sorted({text for table in GREETINGS.values() for text in table.values()})


def vocabulary(language: str) -> list[str]:
    """Every word of a language, once."""
    if language == "en":
        return english_words()
    texts = [*GREETINGS[language], *(_NUMBER[language](n) for n in range(101))]
    return sorted({word for text in texts for word in text.split()})


def number(language: str, n: int) -> str:
    """The words of n, 0 to 100."""
    return _NUMBER[language](n)


def _pause(rng: Random) -> str:
    return ", " if rng.random() < 0.25 else " "


def _numbers(rng: Random, language: str, most: int) -> list[int]:
    """Counting, digits or any numbers: up to `most` of them."""
    size = rng.randint(1, most)
    kind = rng.random()
    if kind < 0.35:
        first = rng.choice([0, 1, 1, rng.randint(0, 90)])
        step = rng.choice([1, 1, 1, 2, 10, -1])
        return [n for i in range(size) if 0 <= (n := first + i * step) <= 100] or [first]
    top = 10 if kind < 0.6 else 20 if kind < 0.75 else 100
    return [rng.randint(0, top) for _ in range(size)]


def _sentence(rng: Random) -> str:
    pick = rng.choice
    kind = rng.randrange(9)
    count = _english_number(rng.choice([rng.randint(2, 12), rng.randint(2, 99)]))
    return (
        f"{pick(PEOPLE)} {pick(VERBS)} the {pick(ADJECTIVES)} {pick(THINGS)}",
        f"{pick(PEOPLE)} {pick(VERBS)} the {pick(THINGS)} {pick(TIMES)}",
        f"the {pick(THINGS)} is {pick(ADJECTIVES)} and {pick(ADJECTIVES)}",
        f"there are {count} {pick(PLURALS)} in the {pick(PLACES)}",
        f"{count} {pick(PLURALS)}",
        f"{pick(DAYS)} {pick(MONTHS)} {_english_number(rng.randint(1, 31))}",
        f"the {pick(ADJECTIVES)} {pick(THINGS)} was in the {pick(PLACES)} {pick(TIMES)}",
        f"please {pick(['open', 'close', 'move', 'take', 'use', 'find'])} the {pick(THINGS)}",
        f"{pick(['this', 'that'])} is {pick(['my', 'our', 'a', 'not a'])} {pick(THINGS)}",
    )[kind]


_ALL_ENGLISH = english_words()


def english_phrase(rng: Random) -> Phrase:
    kind = rng.random()
    if kind < 0.36:
        words = [_english_number(n) for n in _numbers(rng, "en", 9)]
        text = " ".join(words)
        return Phrase("en", text, text, _pause(rng).join(words))
    if kind < 0.52:
        text = rng.choice(ENGLISH_PHRASES)
    elif kind < 0.76:
        text = _sentence(rng)
    else:
        text = " ".join(rng.choice(_ALL_ENGLISH) for _ in range(rng.randint(1, 7)))
    return Phrase("en", text, text, text)


def foreign_phrase(rng: Random, language: str) -> Phrase:
    if rng.random() < 0.62:
        numbers = _numbers(rng, language, 8)
        words = [_NUMBER[language](n) for n in numbers]
        english = " ".join(_english_number(n) for n in numbers)
        return Phrase(language, " ".join(words), english, _pause(rng).join(words))
    table = list(GREETINGS[language].items())
    pairs = [rng.choice(table) for _ in range(rng.choice([1, 1, 1, 2, 2, 3]))]
    texts, translations = zip(*pairs, strict=True)
    return Phrase(language, " ".join(texts), " ".join(translations), _pause(rng).join(texts))


def phrase(rng: Random, language: str) -> Phrase:
    return english_phrase(rng) if language == "en" else foreign_phrase(rng, language)


def english_of(language: str, text: str) -> str:
    """The translation of a greeting, or of number words that are one word each."""
    if text in GREETINGS[language]:
        return GREETINGS[language][text]
    values = {number(language, n): n for n in range(101)}
    return " ".join(number("en", values[word]) for word in text.split())
