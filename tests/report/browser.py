"""A headless Chromium for tests, driven through chromedriver's HTTP interface (W3C WebDriver).

The few commands needed are plain JSON over HTTP, so no driver library is.
"""

import base64
import json
import pathlib
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
)


def missing() -> str | None:
  """Returns why no browser can be driven here, or None if one can."""
  if _browser() is None:
    return f"no headless browser: none of {', '.join(_BROWSERS)} is on PATH"
  if shutil.which("chromedriver") is None:
    return "no headless browser: chromedriver is not on PATH"
  return None


class Browser:
  """One browser window."""

  def __init__(self, server: str, profile_dir: pathlib.Path):
    self._server = server
    options = {"binary": _browser(), "args": [*_FLAGS, f"--user-data-dir={profile_dir}"]}
    capabilities = {
      "goog:chromeOptions": options,
      "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }
    session = _post(f"{server}/session", {"capabilities": {"alwaysMatch": capabilities}})
    self._session = f"{server}/session/{session['sessionId']}"
    # Leave the new-tab page, which asks for dozens of files of its own.
    _post(f"{self._session}/url", {"url": "about:blank"})

  def open(self, path: pathlib.Path) -> None:
    """Opens a file and waits until everything in it is loaded."""
    _post(f"{self._session}/url", {"url": path.resolve().as_uri()})

  def resize(self, width: int, height: int, phone: bool = False) -> None:
    """Sets the size of the page in CSS pixels; a phone has two device pixels to each."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1}
    self._devtools("Emulation.setDeviceMetricsOverride", metrics | {"mobile": phone})

  def prefer_colour_scheme(self, scheme: str) -> None:
    """Sets the reader's preference, 'light' or 'dark'."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    self._devtools("Emulation.setEmulatedMedia", {"features": [feature]})

  def evaluate(self, script: str) -> Any:
    """Returns what a JavaScript function body returns."""
    return _post(f"{self._session}/execute/sync", {"script": script, "args": []})

  def console(self) -> list[str]:
    """Returns the console's messages since the last call."""
    return [entry["message"] for entry in self._log("browser")]

  def requested(self) -> list[str]:
    """Returns the addresses asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
    sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
    return [event["params"]["request"]["url"] for event in sent]

  def screenshot(self, path: pathlib.Path) -> None:
    """Writes the whole page, however long, as a PNG."""
    picture = self._devtools("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(picture["data"]))

  def close(self) -> None:
    _request("DELETE", self._session, None)

  def _devtools(self, command: str, parameters: Mapping[str, Any]) -> Any:
    return _post(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

  def _log(self, kind: str) -> list[Mapping[str, Any]]:
    return _post(f"{self._session}/se/log", {"type": kind})


@contextmanager
def running_browser(profile_dir: pathlib.Path) -> Iterator[Browser]:
  """Starts a browser with a new, empty profile, and ends it with its driver."""
  command = ["chromedriver", "--port=0"]
  with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
    try:
      browser = Browser(f"http://127.0.0.1:{_chosen_port(driver)}", profile_dir)
      try:
        yield browser
      finally:
        browser.close()
    finally:
      driver.terminate()


def _browser() -> str | None:
  return next(filter(None, map(shutil.which, _BROWSERS)), None)


def _chosen_port(driver: subprocess.Popen) -> int:
  for line in driver.stdout:
    if b"started successfully on port" in line:
      return int(line.split()[-1].strip(b"."))
  raise RuntimeError("chromedriver ended before it listened")


def _post(url: str, body: Mapping[str, Any]) -> Any:
  return _request("POST", url, json.dumps(body).encode())


def _request(method: str, url: str, body: bytes | None) -> Any:
  request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
  # Never through a proxy: the driver is on this machine.
  opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
  try:
    with opener.open(request, timeout=60) as answer:
      return json.load(answer)["value"]
  except urllib.error.HTTPError as error:
    raise RuntimeError(f"{url}: {error.read().decode()}") from None
