from .render import render_template
from .report import Report, write_report
from .view import View, view_of, view_of_result

__all__ = [
    "Report",
    "View",
    "render_template",
    "view_of",
    "view_of_result",
    "write_report",
]
