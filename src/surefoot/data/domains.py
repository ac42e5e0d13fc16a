"""The domain of a text as its first word, for models that go by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from surefoot.data.examples import Examples
from surefoot.errors import DataError


def marked(examples: Examples) -> Examples:
    """The examples with the column `domain` written before each text, and before its `positive` and `negative`.

    So `routed_experts` knows them apart, in training and in use. Raises DataError for examples that are no texts or have no
    domains.

    >>> found = marked(Examples(["It rains."], None, (), domain=np.array(["news"])))
    >>> found.inputs
    ['news It rains.']
    """
    if examples.modality != "text" or examples.domain is None:
        raise DataError(f"{examples.source}: texts with a column `domain` are marked by it: add one")
    domains = [str(each) for each in examples.domain]
    columns: dict[str, Any] = {
        name: np.array([f"{domain} {text}" for domain, text in zip(domains, column, strict=True)], dtype=object)
        for name in ("positive", "negative")
        if (column := getattr(examples, name)) is not None
    }
    texts = [f"{domain} {text}" for domain, text in zip(domains, examples.inputs, strict=True)]
    return replace(examples, inputs=texts, **columns)
