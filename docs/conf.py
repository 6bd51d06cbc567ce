"""How Sphinx builds the documentation: sphinx-build -W -n docs docs/_build/html."""

import sys
from pathlib import Path
from typing import Any

from trio_lifecycle import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "trio_lifecycle"
author = "the trio_lifecycle contributors"
copyright = author
release = __version__
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
    "state_picture",
    "guarantee_picture",
]
# The changelog's fragments are for towncrier.
exclude_patterns = ["_build", "changes"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes stand in a list below the class; as entries of their own they would come twice.
napoleon_use_ivar = True

nitpicky = True
# Inventories of other projects would have to be downloaded: their names stay without a link.
nitpick_ignore_regex = [("py:class", r"(collections|contextlib|os|pathlib|re|trio)\.[A-Za-z.]+")]
nitpick_ignore = [
    ("py:class", "Path"),
    ("py:class", "SearchStrategy"),
    ("py:class", "ArgsT"),
    ("py:class", "trio_lifecycle.testing._run.ResultT"),
    # What users are given, and never name themselves.
    ("py:class", "trio_lifecycle._ladder.Rung"),
    ("py:class", "trio_lifecycle._receiver._asgi.ASGIReceiver"),
    ("py:class", "trio_lifecycle.testing._incarnation.Incarnation"),
    ("py:class", "trio_lifecycle.testing._incarnation.Simulated"),
]

html_theme = "furo"
html_title = "trio_lifecycle"


def tidy_signature(
    app: Any,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    """Leave out the type of what is checked as it comes; the list of fields has the real one.

    Nor does a reader need a name for what he leaves out: `...` stands for it.
    """
    if signature is not None:
        for long, short in _TIDIED.items():
            signature = signature.replace(long, short)
    return signature, returned


_TIDIED = {
    ": object": "",
    " = NOTHING": " = ...",
    " | ~trio_lifecycle._ssh._target.LeftOut": "",
    " = LEFT_OUT": " = ...",
}


def setup(app: Any) -> None:
    """Tell Sphinx."""
    app.connect("autodoc-process-signature", tidy_signature)
