"""The page in a real browser: no error, nothing leaves the page, sorting, filtering and hints work."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from bench.records.store import Run
from bench.render.findings import Findings
from bench.render.page import render

LINEAR = {"mamba": lambda n: 1e-6 * n, "attention": lambda n: 2e-9 * n * n}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """
const seen = { errors: [] };
addEventListener("error", (event) => seen.errors.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.violatedDirective));
addEventListener("load", () => {
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
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.body.append(result);
});
"""


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


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [1200, 400])
def test_in_a_browser(planted_records, tmp_path, width):
    records = [r for task in ("forward", "train_step") for r in planted_records(LINEAR, task=task, between=0.02)]
    hostile = {"<script>alert(1)</script>": "<img src=https://example.invalid/x onerror=alert(1)>"}
    page = render(Findings.of([Run("<b>planted</b>", hostile, records)]))
    allowed = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    page = page.replace("script-src ", f"script-src 'sha256-{allowed}' ", 1)
    page = page.replace("</head>", f"<script>{PROBE}</script></head>", 1)
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    seen, complaints, asked = visit(path, tmp_path, width)
    assert seen["errors"] == []
    assert complaints == []
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
