"""Personal data in texts, masked by rules."""

from __future__ import annotations

import re

#: What each rule finds; the first that matches at a place wins.
RULES: dict[str, re.Pattern[str]] = {
    "e-mail": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "IBAN": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "card": re.compile(r"\b(?:\d[ -]?){12,18}\d\b"),
    "address": re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"),
    "telephone": re.compile(
        r"(?<![\w.])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,5}\)[ .-]?)?\d{2,5}(?:[ .-]\d{2,5}){1,4}(?![\w.]*\w)"
    ),
}
#: A telephone number has at least so many digits (a date has fewer), and at most so many (E.164).
_DIGITS = range(9, 16)


def masked(text: str) -> str:
    """The text with an asterisk for each character of an e-mail or IP address, an IBAN (whose check digits are right), a
    card number (whose check digit is right), or a telephone number of 9 to 15 digits.

    Names, streets and whatever has no fixed form stay: to find those takes a trained model, such as that of Presidio.

    >>> masked("Write to jo.doe@example.org or call +44 20 7946 0958, ref. 12345.")
    'Write to ****************** or call ****************, ref. 12345.'
    """
    for name, rule in RULES.items():
        text = rule.sub(lambda found, name=name: _mask(name, found.group()), text)  # type: ignore[misc]
    return text


def _mask(name: str, found: str) -> str:
    digits = [int(each) for each in found if each.isdigit()]
    right = {
        "IBAN": lambda: is_iban(found),
        "card": lambda: is_card(digits),
        "telephone": lambda: len(digits) in _DIGITS,
        "address": lambda: all(int(each) < 256 for each in found.split(".")),
    }.get(name, lambda: True)()
    return "*" * len(found) if right else found


def is_iban(text: str) -> bool:
    """Whether the check digits of an IBAN are right: its number modulo 97 is 1 (ISO 13616)."""
    compact = text.replace(" ", "")
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(each, 36)) for each in moved)) % 97 == 1


def is_card(digits: list[int]) -> bool:
    """Whether the last digit is the check digit of the others (Luhn, ISO/IEC 7812)."""
    doubled = [sum(divmod(2 * each, 10)) if place % 2 else each for place, each in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
