"""Accessibility of a page, as axe-core finds it: contrast, names of what is pressed, labels, headings, landmarks.

assert_accessible(page)                           # a Playwright page, in what it shows now
"""

import pytest

LOADED = "() => ![...document.querySelectorAll('.loading')].some(one => one.checkVisibility())"
SETTLED = """Promise.allSettled(document.getAnimations()
    .filter(one => one.effect.getComputedTiming().endTime < Infinity).map(one => one.finished)).then(() => null)"""


def assert_accessible(page) -> None:
    """Fail with axe-core's report where it finds a violation.

    Before, wait for what Gradio still loads ("Loading..." stands outside all landmarks) and for the end of transitions,
    whose colours are half faded.
    """
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page.wait_for_function(LOADED)
    page.evaluate(SETTLED)
    found = module.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
