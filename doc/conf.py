"""Sphinx's configuration: the pages of this folder as a site, in OpenStack's theme."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from doc.mermaid import with_graphviz  # noqa: E402  what is built is this checkout

project = "agent_flows"
author = "agent_flows developers"
extensions = [
    "myst_parser",
    "openstackdocstheme",
    "oslo_config.sphinxext",
    "oslo_policy.sphinxext",
    "reno.sphinxext",
    "sphinx.ext.graphviz",
    "sphinx_external_toc",
]
exclude_patterns = ["build"]
templates_path = ["_templates"]

# The order of the pages: Markdown has no word for it that a forge would not show.
external_toc_path = "_toc.yml"
# Links to a heading, as a forge makes them.
myst_heading_anchors = 4
graphviz_output_format = "svg"

html_theme = "openstackdocs"
html_title = "agent_flows"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "analytics_tracking_code": "",
    "display_badge": False,
}
openstackdocs_auto_name = False
openstackdocs_auto_version = False


def _draw(app: object, page: str, source: list[str]) -> None:
    source[0] = with_graphviz(source[0])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _draw)
