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
ENGLISH = "en"


def code_of(name: str, known: Mapping[str, int]) -> str:
    """The key of ``known`` a language's code or English name means: "pt", "Portuguese", "pt-BR".

    ``known`` empty is a model of English alone. Raises ``InputError`` that lists the languages.
    """
    codes = list(known) or [ENGLISH]
    asked = name.strip().lower().replace("_", "-")
    for code in (asked, CODES.get(asked), asked.split("-")[0]):
        if code in codes:
            return code
    names = [*codes, *(said for code in codes for said in NAMES.get(code, ()))]
    line = unknown("language", name, names if len(asked) > 3 else codes)
    raise InputError(line if known else f"this model knows English only: {line}")
