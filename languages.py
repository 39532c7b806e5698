"""The languages that Whisper knows, and the one rule for what callers may call them. Knows no model and no job."""

MULTI = "multi"  # the language is detected anew for each window

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

# Other names of the same languages: ISO 639-1 and -2/-3 codes that Whisper does not use, and names in openai/whisper.
_OTHER_NAMES = dict(
    pair.split(":")
    for pair in (
        "nb:no jv:jw iw:he in:id ji:yi fil:tl cmn:zh mo:ro sh:sr mandarin:zh castilian:es flemish:nl burmese:my "
        "valencian:ca haitian:ht letzeburgesch:lb pushto:ps panjabi:pa moldavian:ro moldovan:ro sinhalese:si "
        "bokmål:no bokmal:no farsi:fa filipino:tl "
        "eng:en zho:zh chi:zh deu:de ger:de spa:es rus:ru kor:ko fra:fr fre:fr jpn:ja por:pt tur:tr pol:pl cat:ca "
        "nld:nl dut:nl ara:ar swe:sv ita:it ind:id hin:hi fin:fi vie:vi heb:he ukr:uk ell:el gre:el msa:ms may:ms "
        "ces:cs cze:cs ron:ro rum:ro dan:da hun:hu tam:ta nor:no nob:no tha:th urd:ur hrv:hr bul:bg lit:lt lat:la "
        "mri:mi mao:mi mal:ml cym:cy wel:cy slk:sk slo:sk tel:te fas:fa per:fa lav:lv ben:bn srp:sr aze:az slv:sl "
        "kan:kn est:et mkd:mk mac:mk bre:br eus:eu baq:eu isl:is ice:is hye:hy arm:hy nep:ne mon:mn bos:bs kaz:kk "
        "sqi:sq alb:sq swa:sw glg:gl mar:mr pan:pa sin:si khm:km sna:sn yor:yo som:so afr:af oci:oc kat:ka geo:ka "
        "bel:be tgk:tg snd:sd guj:gu amh:am yid:yi lao:lo uzb:uz fao:fo hat:ht pus:ps tuk:tk nno:nn mlt:mt san:sa "
        "ltz:lb mya:my bur:my bod:bo tib:bo tgl:tl mlg:mg asm:as tat:tt lin:ln hau:ha bak:ba jav:jw sun:su"
    ).split()
)
_CODES = {name: code for code, name in LANGUAGES.items()} | _OTHER_NAMES | {code: code for code in LANGUAGES}
_DETECT = ("", "auto", "detect", "und")


def language_code(name: str) -> str | None:
    """Whisper's code of a language: `en`, `EN`, `English`, `en-US`, `zh_CN`, `eng`; None for `auto` and an empty name.

    A region or script after the code is left out. Raises ValueError: no language is called so.
    """
    plain = name.strip().lower().replace("_", "-")
    if plain in _DETECT:
        return None
    for candidate in (plain, plain.replace("-", " "), plain.partition("-")[0]):
        if candidate in _CODES:
            return _CODES[candidate]
    raise ValueError("unknown language; expected a code or an English name, such as en, de or French, or auto")


def language_choice(name: str) -> str | None:
    """As `language_code`, or `multi`."""
    return MULTI if name.strip().lower() == MULTI else language_code(name)
