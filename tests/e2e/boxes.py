"""Where text lies in a page: boxes that overlap, and text that is cut. Measured in the browser."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from playwright.sync_api import Page

SLACK = 2  # pixels that two boxes may share: line boxes are a little taller than their letters

MANY_COLUMNS = 10  # from so many on, a table is one to scroll

MEASURE = r"""
(manyColumns) => {
  const boxes = [];
  const cut = [];
  const paragraphsCut = [];

  const parentOf = (node) => node.parentElement ?? node.getRootNode().host ?? null;

  // Of an element, once: it is an ancestor of many texts, and a style takes long to ask for.
  const known = new Map();

  function about(element) {
    if (!known.has(element)) {
      const style = getComputedStyle(element);
      const cuts = !(element instanceof SVGElement) && style.overflowX !== "visible";
      known.set(element, {
        hidden: style.visibility === "hidden" || Number(style.opacity) === 0,
        frame: cuts ? element.getBoundingClientRect() : null,
        scrolls: style.overflowX === "auto" || style.overflowX === "scroll",
        cutsBelow: style.overflowY !== "visible",
        inline: style.display === "inline",
      });
    }
    return known.get(element);
  }

  // What is seen of a box: ancestors that hide or scroll what overflows cut it to their own box.
  function seen(rect, element) {
    let { left, top, right, bottom } = rect;
    let lost = null;
    let scrolled = false;
    for (let at = element; at && at !== document.documentElement; at = parentOf(at)) {
      const { hidden, frame, scrolls, cutsBelow } = about(at);
      if (hidden) return null;
      if (!frame) continue;
      const beyond = Math.max(frame.left - left, right - frame.right);
      if (beyond > 2 && !scrolls && frame.width > 1) lost ??= at;
      if (beyond > 2 && scrolls) scrolled = true;
      left = Math.max(left, frame.left);
      right = Math.min(right, frame.right);
      if (cutsBelow) {
        top = Math.max(top, frame.top);
        bottom = Math.min(bottom, frame.bottom);
      }
    }
    if (right - left < 1 || bottom - top < 1) return { lost, scrolled, box: null };
    return { lost, scrolled, box: { left, top, right, bottom } };
  }

  // Of a text that may be turned, as tick labels are.
  function corners(text) {
    const { x, y, width, height } = text.getBBox();
    const toScreen = text.getScreenCTM();
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]].map(([a, b]) => {
      const { x: right, y: down } = new DOMPoint(a, b).matrixTransform(toScreen);
      return [right, down];
    });
  }

  // A number for each paragraph: its own lines may touch, and its parts stand in these lines.
  const paragraphs = new Map();

  function paragraph(element) {
    let at = element;
    while (about(at).inline && parentOf(at)) at = parentOf(at);
    if (!paragraphs.has(at)) paragraphs.set(at, paragraphs.size);
    return paragraphs.get(at);
  }

  function note(text, rect, element, turned) {
    const label = text.trim().replace(/\s+/g, " ").slice(0, 60);
    if (!label || rect.width < 2 || rect.height < 2) return;
    if (!element.checkVisibility()) return;  // inside something that is folded
    const found = seen(rect, element);
    if (!found) return;
    const outside = rect.right > innerWidth + 2 || rect.left < -2;
    if (!found.box) return;
    // What scrolls sideways is read whole all the same, but for sentences: those would wrap.
    const isSentence = element.closest("[data-testid=stMarkdownContainer]") !== null;
    if (isSentence && (found.scrolled || found.lost || outside)) paragraphsCut.push(label);
    if (found.lost || outside) cut.push(label);
    const { left, top, right, bottom } = found.box;
    boxes.push({
      label,
      text: turned ? `label ${boxes.length}` : paragraph(element),
      top,
      bottom,
      corners: turned ?? [[left, top], [right, top], [right, bottom], [left, bottom]],
    });
  }

  function walk(root) {
    for (const child of root.childNodes) {
      if (child.nodeType === Node.TEXT_NODE) {
        const range = document.createRange();
        range.selectNodeContents(child);
        const parent = parentOf(child) ?? root.host;
        const rects = [...range.getClientRects()];
        for (const rect of rects) note(child.textContent, rect, parent);
        // One word on two lines is cut, too.
        const word = child.textContent.trim();
        const lines = new Set(rects.map((rect) => Math.round(rect.top)));
        if (/^[A-Za-z]+$/.test(word) && lines.size > 1 && parent.checkVisibility()) cut.push(word);
        continue;
      }
      if (child.nodeType !== Node.ELEMENT_NODE) continue;
      if (["STYLE", "SCRIPT", "TEMPLATE", "NOSCRIPT", "TITLE", "DESC"].includes(
        child.tagName.toUpperCase())) continue;
      const style = getComputedStyle(child);
      if (style.display === "none") continue;
      // Ligatures of the icon font are drawings, not text.
      if (style.fontFamily.includes("Material Symbols")) continue;
      if (child.tagName === "text") {
        note(child.textContent, child.getBoundingClientRect(), child, corners(child));
        continue;
      }
      if (child.shadowRoot) walk(child.shadowRoot);
      walk(child);
    }
  }
  walk(document.body);
  // Tables are drawn on a canvas, whose text nobody finds: their own scroller says what is cut.
  for (const table of document.querySelectorAll("[data-testid=stDataFrame]")) {
    const columns = Number(table.querySelector("[role=grid]")?.getAttribute("aria-colcount"));
    const scroller = table.querySelector(".dvn-scroller");
    if (!scroller || columns >= manyColumns || !table.checkVisibility()) continue;
    const hidden = scroller.scrollWidth - scroller.clientWidth;
    if (hidden > 4) cut.push(`${hidden} pixels of a table of ${columns} columns`);
  }
  return { boxes, cut: [...new Set(cut)], paragraphs: [...new Set(paragraphsCut)] };
}
"""


@dataclass(frozen=True)
class Box:
    """A line of text and where it is seen, in pixels of the viewport. corners: four, in order.

    text: what parts and lines of the same paragraph share; each label of a drawing has its own.
    """

    label: str
    text: int | str
    top: float
    bottom: float
    corners: list[tuple[float, float]]

    def overlaps(self, other: Box) -> bool:
        """Whether no straight line separates the two, but for the slack."""
        for one in (self, other):
            for (x0, y0), (x1, y1) in zip(one.corners, one.corners[1:3], strict=False):
                length = math.hypot(x1 - x0, y1 - y0) or 1.0
                along = ((x1 - x0) / length, (y1 - y0) / length)
                a, b = self._shadow(along), other._shadow(along)
                if min(a[1], b[1]) - max(a[0], b[0]) <= SLACK:
                    return False
        return True

    def _shadow(self, along: tuple[float, float]) -> tuple[float, float]:
        """From where to where it reaches in a direction, a unit vector."""
        places = [x * along[0] + y * along[1] for x, y in self.corners]
        return min(places), max(places)


@dataclass(frozen=True)
class Measured:
    """What is seen of a page. boxes: every line of text; cut: texts of which a part is cut off,
    words on two lines and tables with columns outside of their frame; paragraphs: of the cut ones,
    those that are sentences or titles, which wrap where there is no room.
    """

    boxes: list[Box]
    cut: list[str]
    paragraphs: list[str]


def measure(page: Page) -> Measured:
    found = page.evaluate(MEASURE, MANY_COLUMNS)
    boxes = [Box(**box) for box in found["boxes"]]
    return Measured(boxes, found["cut"], found["paragraphs"])


def overlaps(boxes: list[Box]) -> list[tuple[str, str]]:
    """Pairs of texts that lie on each other."""
    ordered = sorted(boxes, key=lambda box: box.top)
    pairs = []
    for i, box in enumerate(ordered):
        for other in ordered[i + 1 :]:
            if other.top >= box.bottom:
                break  # all that follow start lower still
            if box.text != other.text and box.overlaps(other):
                pairs.append((box.label, other.label))
    return pairs


def contrast(a: str, b: str) -> float:
    """Of two colours as the browser gives them: `rgb(0, 114, 178)`."""
    levels = []
    for colour in (a, b):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        levels.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(levels) / min(levels)
