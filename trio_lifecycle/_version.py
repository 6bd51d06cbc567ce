"""The version of this package: one place, read by the build and by the HTTP user agent."""

from typing import Final

__version__: Final = "0.1.0"
