"""How Sphinx builds the documentation: sphinx-build -W -n docs docs/_build/html."""

from importlib.metadata import version as version_of

project = "trio_lifecycle"
author = "the trio_lifecycle contributors"
copyright = author
release = version_of("trio-lifecycle")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
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

nitpicky = True
# Inventories of other projects would have to be downloaded: their names stay without a link.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(abc|attrs?|collections|contextlib|enum|h11|httpx|hypothesis|os|pathlib|signal|ssl|trio|types|typing)\..*",
    ),
    (r"py:(class|exc|obj)", r"[A-Z]?[a-z]+|[A-Z][A-Za-z]*(Error|Exception|Group|Path|Callable)"),
    (r"py:(class|obj)", r"Path|Any|Callable|Mapping|Sequence|Iterable|Iterator|AsyncIterator|Self"),
]

html_theme = "furo"
html_title = "trio_lifecycle"
