"""A real browser for tests of pages, and what a person would complain of at a glance."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
MODES, WIDTHS = ("light", "dark"), (400, 900, 1400)
_LOOKS, _PAUSE = 50, 200  # number of looks at a page, and ms between them
_HIGHEST = 12_000  # height of a window, pixels

_DRAWN = "[...document.querySelectorAll('.figure')].filter(f => f.clientWidth).every(f => f.dataset.arranged)"

_OVERLAPS = """() => {
  const found = [];
  for (const figure of document.querySelectorAll(".figure")) {
    if (!figure.clientWidth) continue;
    const frame = figure.getBoundingClientRect();
    const texts = [...figure.querySelectorAll("svg text")].filter(t => !t.closest(".hoverlayer, .modebar"))
      .map(t => [t.textContent, t.getBoundingClientRect(), t]).filter(([text, box]) => text.trim() && box.width);
    texts.forEach(([text, box, node], n) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
          || box.bottom > frame.bottom + 1) found.push(`${figure.id}: "${text}" is cut off`);
      for (const [other, its] of texts.slice(n + 1)) {
        const wide = Math.min(box.right, its.right) - Math.max(box.left, its.left);
        const high = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
        if (wide > 1.5 && high > 3) found.push(`${figure.id}: "${text}" meets "${other}"`);
      }
    });
  }
  return found;
}"""

_COLOURS = """() => {
  const paper = getComputedStyle(document.querySelector("section")).backgroundColor;
  const weights = [0.3, 0.6, 0.1];
  const light = c => c.match(/[0-9.]+/g).map(Number).reduce((sum, part, n) => sum + (weights[n] ?? 0) * part, 0);
  const found = [];
  for (const figure of document.querySelectorAll(".figure")) {
    const drawn = figure.querySelector(".main-svg");
    if (!figure.clientWidth || !drawn) continue;
    const ground = getComputedStyle(drawn).backgroundColor;
    if (ground !== paper) found.push(`${figure.id}: ${ground} on ${paper}`);
    for (const text of figure.querySelectorAll("svg text")) {
      if (text.closest(".hoverlayer, .modebar") || !text.textContent.trim()) continue;
      const ink = getComputedStyle(text).fill;
      if (Math.abs(light(ink) - light(paper)) < 60) found.push(`${figure.id}: "${text.textContent}" is ${ink}`);
    }
  }
  return found;
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a headless Chromium; skip the test if playwright or the browser is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="no browser: playwright is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(PROGRAMS)}")
    options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL without a GPU
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, mode: str, width: int) -> Iterator[tuple[Any, list[str]]]:
    """Open a page; give it with the list that its script errors go to."""
    context = browser.new_context(color_scheme=mode, viewport={"width": width, "height": 900})
    context.set_default_timeout(120_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(f"{error} {error.stack or ''}"))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(address)
    yield page, errors
    context.close()


def draw_all(page: Any) -> None:
    """Show the whole page, in windows as high as a browser can draw, and wait until all its figures are drawn."""
    page.wait_for_load_state("load")
    height = page.evaluate("document.documentElement.scrollHeight") + 600
    page.set_viewport_size({"width": page.viewport_size["width"], "height": min(height, _HIGHEST)})
    for top in range(0, height, _HIGHEST):
        page.evaluate("top => window.scrollTo(0, top)", top)
        page.wait_for_timeout(100)
    page.wait_for_function(_DRAWN)


def complaints(page: Any) -> list[str]:
    """
    List labels that meet or are cut off, colours of the wrong mode, and a page that is wider than its window.

    A figure may still be drawn anew after the window or the mode has changed: what goes away within ten seconds is no
    complaint.
    """
    for _ in range(_LOOKS):
        found = [*page.evaluate(_OVERLAPS), *page.evaluate(_COLOURS)]
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > page.viewport_size["width"]:
            found.append(f"the page is {wide} pixels wide")
        if not found:
            break
        page.wait_for_timeout(_PAUSE)
    return found
