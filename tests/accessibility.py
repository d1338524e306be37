"""Accessibility of a page, as axe-core finds it: contrast, names of what is pressed, labels, headings, landmarks.

assert_accessible(page)                           # a Playwright page, in what it shows now
"""

import pytest

SETTLED = """Promise.allSettled(document.getAnimations()
    .filter(one => one.effect.getComputedTiming().endTime < Infinity).map(one => one.finished)).then(() => null)"""


def assert_accessible(page) -> None:
    """Fail with axe-core's report where it finds a violation; half-faded colours of transitions are waited for."""
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page.evaluate(SETTLED)
    found = module.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
