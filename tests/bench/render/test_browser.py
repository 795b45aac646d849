"""The page in a real browser: no error, nothing leaves it; sorting, filtering, hints, keys, print and contrast."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html import unescape

import pytest
from test_forest import TOWERS, run_of

from bench.records.store import Run
from bench.render.findings import Findings
from bench.render.page import render
from bench.render.styles import COLOURS

LINEAR = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 2e-9 * n * n}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = r"""
const seen = { errors: [] };
addEventListener("error", (event) => seen.errors.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.violatedDirective));
const luminance = (colour) => {
  const linear = colour.map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const parsed = (text) => {
  const numbers = text.match(/[\d.]+(?:e-\d+)?/g).map(Number);
  return text.startsWith("rgb") ? numbers.map((x, i) => (i < 3 ? x / 255 : x)) : numbers;
};
const contrast = (element, page) => {
  const style = getComputedStyle(element), over = parsed(style.backgroundColor), alpha = over[3] ?? 1;
  const below = page.map((x, i) => alpha * over[i] + (1 - alpha) * x);
  const [high, low] = [luminance(parsed(style.color)), luminance(below)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
};
const wide = (selector) => [...document.querySelectorAll(selector)].filter(
  (region) => region.scrollWidth > region.clientWidth + 1).map((region) => region.ariaLabel);
addEventListener("load", () => {
  const page = parsed(getComputedStyle(document.documentElement).backgroundColor).slice(0, 3);
  const samples = COLOURS.map((name) => {
    const cell = document.querySelector("td").parentElement.insertCell();
    cell.className = `${name} tint`;
    return cell;
  });
  seen.contrasts = samples.map((cell) => contrast(cell, page));
  samples.forEach((cell) => cell.remove());
  seen.width = innerWidth;
  seen.cut = wide("#answer .scroll, #quality .scroll");
  seen.clipped = /… \([\d,]+ characters\)/.test(document.body.textContent);
  const points = [...document.querySelectorAll("svg")].map((svg) => [...svg.querySelectorAll(".point")]);
  seen.stops = points.filter((each) => each.length).map((each) => each.filter((x) => x.tabIndex === 0).length);
  seen.spoken = points.flat().every((x) => x.getAttribute("role") === "img" && x.ariaLabel
    && x.closest("svg").getAttribute("role") === "group");
  const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const first = points.find((each) => each.length > 1);
  first[0].focus();
  press("ArrowRight");
  seen.moved = first.indexOf(document.activeElement);
  seen.stop = first.findIndex((x) => x.tabIndex === 0);
  press("End");
  seen.end = first.indexOf(document.activeElement) === first.length - 1;
  const folds = [...document.querySelectorAll("details")];
  dispatchEvent(new Event("beforeprint"));
  seen.unfolded = folds.every((each) => each.open);
  seen.cut_open = wide("#answer .scroll, #quality .scroll");
  dispatchEvent(new Event("afterprint"));
  seen.folded = folds.length && !folds.some((each) => each.open);
  const finish = () => {
    const result = document.createElement("pre");
    result.id = "seen";
    result.textContent = JSON.stringify(seen);
    document.body.append(result);
  };
  if (!document.querySelector("#cells")) return finish();
  const table = document.querySelector("#cells table");
  const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === "median");
  const values = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[column].dataset.sort));
  const button = table.tHead.rows[0].cells[column].querySelector("button");
  button.click();
  seen.ascending = values();
  button.click();
  seen.descending = values();
  const input = document.querySelector("#cells .filter input");
  input.value = "mamba 10,000";
  input.dispatchEvent(new Event("input"));
  seen.left = [...table.tBodies[0].rows].filter((row) => !row.hidden).length;
  const point = document.querySelector(".point");
  point.dispatchEvent(new FocusEvent("focusin", { bubbles: true }));
  const tip = document.getElementById("tip");
  seen.hint = tip.textContent;
  seen.shown = !tip.hidden && tip.getBoundingClientRect().height > 0;
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  seen.gone = tip.hidden;
  seen.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  finish();
});
""".replace("COLOURS", json.dumps([name for name in COLOURS if name.startswith("colour")]))


def visit(path, profile, width):
    """What the probe saw, the browser's complaints, and every address that it asked for."""
    log = profile / "net.json"
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--no-first-run", f"--user-data-dir={profile}", f"--log-net-log={log}",
            f"--window-size={width},900", "--enable-logging=stderr", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, "the page's script did not run to its end"
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    asked = re.findall(r'"url":"(https?://[^"]*)"', log.read_text()) if log.exists() else []
    return json.loads(unescape(found[1])), complaints, asked


def watched(page, folder, width):
    """What the probe saw of a page, and what was asked of the network; what holds for every page is asserted."""
    allowed = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    page = page.replace("script-src ", f"script-src 'sha256-{allowed}' ", 1)
    path = folder / "page.html"
    path.write_text(page.replace("</head>", f"<script>{PROBE}</script></head>", 1), encoding="utf-8")
    seen, complaints, asked = visit(path, folder, width)
    assert seen["errors"] == []
    assert complaints == []
    assert min(seen["contrasts"]) >= 4.5
    assert len(seen["contrasts"]) == 13
    assert set(seen["stops"]) == {1}
    assert seen["spoken"]
    assert (seen["moved"], seen["stop"], seen["end"]) == (1, 1, True)
    assert seen["unfolded"]
    assert not seen["clipped"]
    return seen, asked


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize(("width", "dark"), [(1400, True), (390, False)])
def test_rankings_in_a_browser(tmp_path, width, dark):
    """On a wide screen no column is cut, on a narrow one none of the answer; folds are shut again after print."""
    page = render(Findings.of([run_of(tmp_path, TOWERS, train_wall_s=3.0, users_evaluated=150)]))
    assert page.count("prefers-color-scheme: dark") == 2
    if dark:
        page = page.replace("prefers-color-scheme: dark", "min-width: 1px")
    seen, _ = watched(page, tmp_path, width)
    assert seen["folded"]
    if width == 1400:
        assert seen["cut"] == seen["cut_open"] == []
    else:
        assert seen["width"] < 520
        assert not [label for label in seen["cut"] if "on every data set" in label]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [1200, 400])
def test_in_a_browser(planted_records, tmp_path, width):
    records = [r for task in ("forward", "train_step") for r in planted_records(LINEAR, task=task, between=0.02)]
    hostile = {"<script>alert(1)</script>": "<img src=https://example.invalid/x onerror=alert(1)>"}
    page = render(Findings.of([Run("<b>planted</b>", hostile, records)]))
    seen, asked = watched(page, tmp_path, width)
    assert [address for address in asked if "example.invalid" in address] == []
    assert seen["ascending"] == sorted(seen["ascending"])
    assert seen["descending"] == sorted(seen["descending"], reverse=True)
    assert len(set(seen["ascending"])) > 5
    assert seen["left"] == 2
    assert seen["shown"]
    assert seen["gone"]
    assert re.match(
        r"forward, attention/sdpa, L 100, .*: 20\.\d µs \(95 %: .*\), 3 rounds, 30 samples, ok", seen["hint"]
    )
    assert not seen["wide"], "the page scrolls sideways"
