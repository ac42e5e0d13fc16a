"""English sentences turned into what they do not say, by rules: "not" at the verb, or the one that is there taken out.

Rules of our own, of the same kind as the public `negate`: that one reads a parse, for which spaCy needs a model that no
package index has. Without a parse, sentences whose verb is not certain are given up rather than guessed at.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from surefoot.errors import require

#: Auxiliaries with what they are when negated; those of `_BE` are verbs by themselves.
_BE = {"am": "am not", "is": "isn't", "are": "aren't", "was": "wasn't", "were": "weren't"}
_MODAL = {
    "can": "can't",
    "could": "couldn't",
    "will": "won't",
    "would": "wouldn't",
    "shall": "shall not",
    "should": "shouldn't",
    "must": "mustn't",
    "may": "may not",
    "might": "might not",
}
_HAVE = {"have": "haven't", "has": "hasn't", "had": "hadn't"}
_DO = {"do": "don't", "does": "doesn't", "did": "didn't"}
_AUXILIARIES = {**_BE, **_MODAL, **_HAVE, **_DO}
_POSITIVE = {"cannot": "can"} | {
    negated: positive for positive, negated in _AUXILIARIES.items() if negated.endswith("n't")
}
#: "I'm" and the like; 's and 'd stand for two auxiliaries each and are told apart by what follows.
_SHORT = {"'m": "am", "'re": "are", "'ve": "have", "'ll": "will"}
_PRONOUNS = frozenset({"i", "you", "he", "she", "it", "we", "they", "this", "that", "there", "these", "those"})
_THIRD = frozenset({"he", "she", "it", "this", "that"})
#: From here on a sentence speaks in another clause.
_CLAUSES = frozenset(
    [
        "who",
        "whom",
        "whose",
        "which",
        "that",
        "if",
        "when",
        "whenever",
        "while",
        "because",
        "although",
        "though",
        "unless",
        "until",
        "since",
        "where",
        "whether",
        "as",
        "than",
        "what",
        "how",
        "why",
        "before",
        "after",
    ]
)
#: What says "not" in other ways; sentences with one of them are left alone.
_OTHER = frozenset(
    [
        "no",
        "never",
        "nobody",
        "nothing",
        "none",
        "neither",
        "nor",
        "nowhere",
        "hardly",
        "scarcely",
        "barely",
        "without",
        "not",
    ]
)
_ADVERBS = frozenset(
    ["also", "always", "just", "never", "now", "often", "only", "really", "still", "soon", "then", "usually", "already"]
)
_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)?")


def negated(sentence: str) -> str | None:
    """The sentence with its verb negated, or without its "not"; None where the rules do not know which verb that is.

    1. One "not" (n't, cannot) at an auxiliary: taken out; "does not like" becomes "likes". 2. Else "not" is put at the
    auxiliary, the modal or the form of be of the first clause ("will" to "won't"). 3. Else, after a pronoun or where only a
    verb can be meant ("went", "said"), do-support: "He likes it." to "He doesn't like it.". Questions, and sentences that
    negate in another way ("never", "nobody"), give None. Needs the package `lemminflect` for forms of verbs.

    >>> negated("A man is playing a guitar."), negated("She doesn't like it."), negated("They went home.")
    ("A man isn't playing a guitar.", 'She likes it.', "They didn't go home.")
    """
    if sentence.rstrip().endswith("?"):
        return None
    words = list(_WORD.finditer(sentence.replace("’", "'")))
    text = sentence.replace("’", "'")
    lower = [word.group().lower() for word in words]
    if any(each in _OTHER or each.endswith("n't") or each == "cannot" for each in lower):
        return _affirmed(text, words, lower)
    return _denied(text, words, lower)


def _denied(text: str, words: list[re.Match[str]], lower: list[str]) -> str | None:
    for place, word in enumerate(lower):
        subject = lower[place - 1] if place else ""
        if word in _CLAUSES and not (word in _PRONOUNS and not place):
            return None  # the main verb, if it is still to come, lies behind a clause
        if word == "may" and words[place].group()[0] == "M":
            continue
        if (short := _shortened(lower, place)) is not None:
            stem, auxiliary = short
            if stem in _MODAL:
                return _put(text, words[place], f"{_MODAL[stem]} {auxiliary}")
            return _put(text, words[place], f"{words[place].group()[: len(stem)]} {_AUXILIARIES[auxiliary]}")
        if word in _BE or word in _MODAL:
            return _put(text, words[place], _AUXILIARIES[word]) if place else None
        if word in _HAVE and place and place + 1 < len(lower) and _is_participle(_after(lower, place)):
            return _put(text, words[place], _HAVE[word])
        if word in _DO and place and place + 1 < len(lower) and _is_base(_after(lower, place)):
            return _put(text, words[place], _DO[word])
        if place and _is_main_verb(word, subject if subject not in _ADVERBS else lower[place - 2]):
            base, tense = _base(word)
            return _put(text, words[place], f"{_support(tense)} {base}")
    return None


def _shortened(lower: list[str], place: int) -> tuple[str, str] | None:
    """("i", "am") of "I'm"; 's is "has" before a participle with "been" or "got", else "is", after a pronoun alone."""
    stem, mark, ending = lower[place].partition("'")
    if not mark:
        return None
    if f"'{ending}" in _SHORT:
        return stem, _SHORT[f"'{ending}"]
    following = _after(lower, place)
    if ending == "s" and stem in _PRONOUNS:
        return stem, "has" if following in ("been", "got", "had", "done", "gone") else "is"
    if ending == "d" and stem in _PRONOUNS:
        return stem, "would" if _is_base(following) else "had"
    return None


def _affirmed(text: str, words: list[re.Match[str]], lower: list[str]) -> str | None:
    marks = [n for n, each in enumerate(lower) if each in _OTHER or each.endswith("n't") or each == "cannot"]
    place = marks[0]
    if len(marks) > 1 or place == 0 or any(each in _CLAUSES for each in lower[:place]):
        return None
    if lower[place] != "not":
        if lower[place] not in _POSITIVE:
            return None
        return _without(text, words, lower, place, place, _POSITIVE[lower[place]])
    auxiliary = lower[place - 1].rpartition("'")
    if lower[place - 1] in _AUXILIARIES:
        return _without(text, words, lower, place - 1, place, lower[place - 1])
    if f"'{auxiliary[2]}" in (*_SHORT, "'s", "'d"):
        return f"{text[: words[place - 1].end()]}{text[words[place].end() :]}"
    return None


def _without(text: str, words: list[re.Match[str]], lower: list[str], start: int, end: int, auxiliary: str) -> str:
    """The text with the auxiliary alone where auxiliary and "not" stood; "did like" becomes "liked"."""
    following = _after(lower, end)
    if auxiliary in _DO and end + 1 < len(words) and _is_base(following):
        verb = words[end + 1]
        form = _inflected(following, {"do": "VBP", "does": "VBZ", "did": "VBD"}[auxiliary])
        return f"{text[: words[start].start()]}{form}{text[verb.end() :]}"
    return f"{text[: words[start].start()]}{auxiliary}{text[words[end].end() :]}"


def _put(text: str, word: re.Match[str], new: str) -> str:
    new = new[:1].upper() + new[1:] if word.group()[:1].isupper() else new
    return f"{text[: word.start()]}{new}{text[word.end() :]}"


def _after(lower: list[str], place: int) -> str:
    """The next word that is no adverb, "" at the end."""
    rest = [each for each in lower[place + 1 :] if each not in _ADVERBS and not each.endswith("ly")]
    return rest[0] if rest else ""


def _is_main_verb(word: str, subject: str) -> bool:
    """Whether a word is a finite verb: of any form after a pronoun, else one that no noun and no participle looks like."""
    tags = _tags(word)
    if subject in _PRONOUNS - {"that", "this", "there", "these", "those"}:
        return bool(tags & ({"VBZ", "VBD"} if subject in _THIRD else {"VBP", "VBD"}))
    only_verb = set(_lemmas(word)) == {"VERB"}
    return only_verb and (word == "said" or ("VBD" in tags and not _is_participle(word)) or tags == {"VBZ"})


def _base(word: str) -> tuple[str, str]:
    """("go", "VBD") of "went"."""
    base = _lemmas(word)["VERB"][0]
    tags = _tags(word)
    return base, next(tag for tag in ("VBZ", "VBD", "VBP") if tag in tags)


def _support(tag: str) -> str:
    return {"VBZ": "doesn't", "VBD": "didn't", "VBP": "don't"}[tag]


def _is_base(word: str) -> bool:
    return "VB" in _tags(word)


def _is_participle(word: str) -> bool:
    """Past participles; where a verb has one form for both, it is listed as the past alone."""
    for base in _lemmas(word).get("VERB", ()):
        forms = _library().getAllInflections(base, "VERB")
        if word in forms.get("VBN", forms.get("VBD", ())):
            return True
    return word == "been"


@cache
def _tags(word: str) -> frozenset[str]:
    """Which forms of a verb a word can be."""
    found = set()
    for base in _lemmas(word).get("VERB", ()):
        forms = _library().getAllInflections(base, "VERB")
        found |= {tag for tag, words in forms.items() if word in words}
    return frozenset(found)


@cache
def _lemmas(word: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = _library().getAllLemmas(word)
    return found


def _inflected(base: str, tag: str) -> str:
    if tag == "VBP":
        return base
    found = _library().getInflection(base, tag)
    return str(found[0]) if found else base


def _library() -> Any:
    return require("lemminflect", extra="negation", why="negating sentences")
