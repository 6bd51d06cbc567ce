"""The fingerprint of a configuration: enough to say which fields differ, and no value of any."""

import hashlib
from collections.abc import Mapping
from typing import Final

# Two different values have the same by chance once in four thousand millions.
_DIGITS: Final = 8


def fingerprint(fields: Mapping[str, object]) -> str:
    """Write the fields of a configuration as ``name:digest`` each, in their order.

    Args:
        fields: The values by the names of their fields. Their ``repr`` must be the same in every
            program: no object's address, no set.
    """
    return " ".join(f"{name}:{_digest(value)}" for name, value in fields.items())


def _digest(value: object) -> str:
    text = repr(value).encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()[:_DIGITS]


def differences(old: str, new: str) -> tuple[str, ...]:
    """Name the fields in which two configurations differ, by their fingerprints.

    A field that only one of them has is left out: that one is of another version of this package.
    """
    before, after = _parse(old), _parse(new)
    return tuple(name for name in after if name in before and before[name] != after[name])


def _parse(text: str) -> dict[str, str]:
    pairs = (part.partition(":") for part in text.split())
    return {name: digest for name, _, digest in pairs}
