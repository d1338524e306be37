"""The Jinja templates of `templates/`: HTML, in which every value is escaped, and Markdown.

render_template("card.md", view=view_of(config), photos=True)
"""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape


def in_markdown(value: Any) -> Any:
    """A value as Markdown, with < and | escaped: no HTML, and no end of a table's cell."""
    return value if isinstance(value, Markup) else str(value).replace("<", "&lt;").replace("|", r"\|")


def with_code(text: str) -> Markup:
    """A text as HTML; what is between backticks becomes code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


TEMPLATES = Path(__file__).parent / "templates"
OPTIONS = {
    "loader": FileSystemLoader(TEMPLATES),
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
}
HTML = Environment(autoescape=True, **OPTIONS)
HTML.filters["with_code"] = with_code
MARKDOWN = Environment(finalize=in_markdown, keep_trailing_newline=True, **OPTIONS)
MARKDOWN.policies["json.dumps_kwargs"] = {"ensure_ascii": False}


def render_template(name: str, **values: Any) -> str:
    """Fill in the template `name`: HTML by its ending, else Markdown."""
    return (HTML if name.endswith(".html") else MARKDOWN).get_template(name).render(values)
