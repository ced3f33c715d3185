"""Names of languages and the codes a model's language tokens carry."""

from __future__ import annotations

from collections.abc import Mapping

from edgegen.errors import InputError
from edgegen.registry import unknown

# The languages of Whisper (arXiv 2212.04356, appendix E) and the other names they go by.
NAMES: dict[str, tuple[str, ...]] = {
    "af": ("afrikaans",),
    "am": ("amharic",),
    "ar": ("arabic",),
    "as": ("assamese",),
    "az": ("azerbaijani",),
    "ba": ("bashkir",),
    "be": ("belarusian",),
    "bg": ("bulgarian",),
    "bn": ("bengali",),
    "bo": ("tibetan",),
    "br": ("breton",),
    "bs": ("bosnian",),
    "ca": ("catalan", "valencian"),
    "cs": ("czech",),
    "cy": ("welsh",),
    "da": ("danish",),
    "de": ("german",),
    "el": ("greek",),
    "en": ("english",),
    "es": ("spanish", "castilian"),
    "et": ("estonian",),
    "eu": ("basque",),
    "fa": ("persian", "farsi"),
    "fi": ("finnish",),
    "fo": ("faroese",),
    "fr": ("french",),
    "gl": ("galician",),
    "gu": ("gujarati",),
    "ha": ("hausa",),
    "haw": ("hawaiian",),
    "he": ("hebrew",),
    "hi": ("hindi",),
    "hr": ("croatian",),
    "ht": ("haitian creole", "haitian"),
    "hu": ("hungarian",),
    "hy": ("armenian",),
    "id": ("indonesian",),
    "is": ("icelandic",),
    "it": ("italian",),
    "ja": ("japanese",),
    "jw": ("javanese",),
    "ka": ("georgian",),
    "kk": ("kazakh",),
    "km": ("khmer",),
    "kn": ("kannada",),
    "ko": ("korean",),
    "la": ("latin",),
    "lb": ("luxembourgish", "letzeburgesch"),
    "ln": ("lingala",),
    "lo": ("lao",),
    "lt": ("lithuanian",),
    "lv": ("latvian",),
    "mg": ("malagasy",),
    "mi": ("maori",),
    "mk": ("macedonian",),
    "ml": ("malayalam",),
    "mn": ("mongolian",),
    "mr": ("marathi",),
    "ms": ("malay",),
    "mt": ("maltese",),
    "my": ("myanmar", "burmese"),
    "ne": ("nepali",),
    "nl": ("dutch", "flemish"),
    "nn": ("nynorsk",),
    "no": ("norwegian",),
    "oc": ("occitan",),
    "pa": ("punjabi", "panjabi"),
    "pl": ("polish",),
    "ps": ("pashto", "pushto"),
    "pt": ("portuguese",),
    "ro": ("romanian", "moldavian", "moldovan"),
    "ru": ("russian",),
    "sa": ("sanskrit",),
    "sd": ("sindhi",),
    "si": ("sinhala", "sinhalese"),
    "sk": ("slovak",),
    "sl": ("slovenian",),
    "sn": ("shona",),
    "so": ("somali",),
    "sq": ("albanian",),
    "sr": ("serbian",),
    "su": ("sundanese",),
    "sv": ("swedish",),
    "sw": ("swahili",),
    "ta": ("tamil",),
    "te": ("telugu",),
    "tg": ("tajik",),
    "th": ("thai",),
    "tk": ("turkmen",),
    "tl": ("tagalog",),
    "tr": ("turkish",),
    "tt": ("tatar",),
    "uk": ("ukrainian",),
    "ur": ("urdu",),
    "uz": ("uzbek",),
    "vi": ("vietnamese",),
    "yi": ("yiddish",),
    "yo": ("yoruba",),
    "yue": ("cantonese",),
    "zh": ("chinese", "mandarin"),
}
CODES = {name: code for code, names in NAMES.items() for name in names}
# What the same languages begin with in longer codes: ISO 639-3, and the variety meant where those
# codes have several ("por_Latn", "zho_Hans", "arb_Arab").
LONGER: dict[str, tuple[str, ...]] = {
    "af": ("afr",), "am": ("amh",), "ar": ("ara", "arb"), "as": ("asm",), "az": ("aze", "azj"),
    "ba": ("bak",), "be": ("bel",), "bg": ("bul",), "bn": ("ben",), "bo": ("bod",), "br": ("bre",),
    "bs": ("bos",), "ca": ("cat",), "cs": ("ces",), "cy": ("cym",), "da": ("dan",), "de": ("deu",),
    "el": ("ell",), "en": ("eng",), "es": ("spa",), "et": ("est", "ekk"), "eu": ("eus",),
    "fa": ("fas", "pes"), "fi": ("fin",), "fo": ("fao",), "fr": ("fra",), "gl": ("glg",),
    "gu": ("guj",), "ha": ("hau",), "haw": ("haw",), "he": ("heb", "iw"), "hi": ("hin",),
    "hr": ("hrv",), "ht": ("hat",), "hu": ("hun",), "hy": ("hye",), "id": ("ind",), "is": ("isl",),
    "it": ("ita",), "ja": ("jpn",), "jw": ("jav", "jv"), "ka": ("kat",), "kk": ("kaz",),
    "km": ("khm",), "kn": ("kan",), "ko": ("kor",), "la": ("lat",), "lb": ("ltz",), "ln": ("lin",),
    "lo": ("lao",), "lt": ("lit",), "lv": ("lav", "lvs"), "mg": ("mlg", "plt"), "mi": ("mri",),
    "mk": ("mkd",), "ml": ("mal",), "mn": ("mon", "khk"), "mr": ("mar",), "ms": ("msa", "zsm"),
    "mt": ("mlt",), "my": ("mya",), "ne": ("nep", "npi"), "nl": ("nld",), "nn": ("nno",),
    "no": ("nor", "nob", "nb"), "oc": ("oci",), "pa": ("pan",), "pl": ("pol",),
    "ps": ("pus", "pbt"), "pt": ("por",), "ro": ("ron",), "ru": ("rus",), "sa": ("san",),
    "sd": ("snd",), "si": ("sin",), "sk": ("slk",), "sl": ("slv",), "sn": ("sna",), "so": ("som",),
    "sq": ("sqi", "als"), "sr": ("srp",), "su": ("sun",), "sv": ("swe",), "sw": ("swa", "swh"),
    "ta": ("tam",), "te": ("tel",), "tg": ("tgk",), "th": ("tha",), "tk": ("tuk",),
    "tl": ("tgl", "fil"), "tr": ("tur",), "tt": ("tat",), "uk": ("ukr",), "ur": ("urd",),
    "uz": ("uzb", "uzn"), "vi": ("vie",), "yi": ("yid", "ydd"), "yo": ("yor",), "yue": ("yue",),
    "zh": ("zho",),
}  # fmt: skip
SHORT = {longer: code for code, names in LONGER.items() for longer in names}
ENGLISH = "en"


def code_of(name: str, known: Mapping[str, int]) -> str:
    """The key of ``known`` a language's code or English name means: "pt", "Portuguese", "pt-BR".

    Codes of ``known`` may be longer: "pt" is "por_Latn" or "pt_XX" where only one such is known.
    ``known`` empty is a model of English alone. Raises ``InputError`` that lists the languages.
    """
    codes = list(known) or [ENGLISH]
    asked = _folded(name)
    plain = {_folded(code): code for code in codes}
    for spelling in (asked, CODES.get(asked), asked.split("-")[0]):
        if spelling in plain:
            return plain[spelling]
    meant = [code for code in codes if _short(code) == CODES.get(asked, _short(name))]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise InputError(f"language {name!r} is {' and '.join(meant)} here; name one of them.")
    names = [*codes, *(said for code in codes for said in NAMES.get(_short(code), ()))]
    line = unknown("language", name, names if len(asked) > 3 else codes)
    raise InputError(line if known else f"this model knows English only: {line}")


def _folded(code: str) -> str:
    return code.strip().lower().replace("_", "-")


def _short(code: str) -> str:
    """The language of a code, without script and region, in two letters where there are two."""
    language = _folded(code).split("-")[0]
    return SHORT.get(language, language)
