"""A page in Chromium, by PyQt6-WebEngine, in a process of its own: `python browser.py JOB.json`.

The job has `url`, `width` and `height`, and of `script` (JavaScript whose value comes back),
`picture` (a PNG of what is in sight), `paper` (a PDF) and `dark` what is wanted. The value is
printed as JSON. Tests call `browse`, which skips where there is no browser (`make browser`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# What sticks out or is cut off, what is empty, and which parts of the page a reader can reach.
MEASURE = """(() => {
  const box = e => e.getBoundingClientRect(), all = s => [...document.querySelectorAll(s)];
  const wide = document.documentElement.clientWidth;
  for (const d of all('details')) d.open = true;
  const seen = all('body *').filter(e => !e.closest('svg, .unseen, thead') && box(e).width > 1);
  const name = e => e.tagName + ':' + e.textContent.slice(0, 40);
  return {
    width: document.documentElement.scrollWidth <= wide,
    out: seen.filter(e => box(e).right > wide + 1 || box(e).left < -1).map(name),
    cut: seen.filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth
      && getComputedStyle(e).overflowX !== 'visible').map(name),
    drawings: all('svg').map(e => box(e).width * box(e).height),
    empty: all('details.section').filter(e => box(e).height < 40).map(name),
    unnamed: all('input, select, button, [role=img]').filter(
      e => !e.labels?.length && !e.textContent.trim() && !e.ariaLabel).map(name),
    unheaded: all('thead th').filter(e => e.scope !== 'col').length,
    links: all('a').map(e => e.href),
    height: document.body.scrollHeight};
})()"""

LONGEST = 60  # seconds that a page may take
_OWN = Path(__file__).parents[1] / ".venv-browser" / "bin" / "python"
_NO_BROWSER = 3


def browse(folder: Path, url: str, width: int = 1280, **job: Any) -> Any:
    """The value of `script` on the page; see the module for the keys of a job."""
    import pytest

    path = folder / "job.json"
    path.write_text(json.dumps({"url": url, "width": width, **job}), encoding="utf-8")
    python = os.environ.get("BROWSER_PYTHON", _OWN if _OWN.exists() else sys.executable)
    done = subprocess.run(
        [python, __file__, path], capture_output=True, text=True, timeout=2 * LONGEST, check=False
    )
    if done.returncode == _NO_BROWSER:
        pytest.skip(f"no browser (make browser): {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _show(job: dict[str, Any]) -> int:
    os.environ.update(QT_QPA_PLATFORM="offscreen", QTWEBENGINE_DISABLE_SANDBOX="1")
    scheme = 0 if job.get("dark") else 1
    os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = (
        f"--disable-gpu --disable-background-networking "
        f"--blink-settings=preferredColorScheme={scheme}"
    )
    try:
        from PyQt6.QtCore import QMarginsF, QTimer, QUrl
        from PyQt6.QtGui import QPageLayout, QPageSize
        from PyQt6.QtWebEngineWidgets import QWebEngineView
        from PyQt6.QtWidgets import QApplication
    except ImportError as error:
        print(error, file=sys.stderr)
        return _NO_BROWSER
    application = QApplication([sys.argv[0]])
    view = QWebEngineView()
    view.resize(job["width"], job.get("height", 900))
    found: dict[str, Any] = {}

    def loaded(well: bool) -> None:
        found["loaded"] = well
        QTimer.singleShot(300, lambda: view.page().runJavaScript(job.get("script", "null"), after))

    def after(value: Any) -> None:
        found["value"] = value
        if "paper" in job:
            size = QPageSize(QPageSize.PageSizeId.A4)
            layout = QPageLayout(size, QPageLayout.Orientation.Portrait, QMarginsF())
            view.page().pdfPrintingFinished.connect(lambda *_: application.quit())
            view.page().printToPdf(job["paper"], layout)
        elif "picture" in job:
            QTimer.singleShot(500, picture)
        else:
            application.quit()

    def picture() -> None:
        view.grab().save(job["picture"])
        application.quit()

    view.loadFinished.connect(loaded)
    view.load(QUrl(job["url"]))
    view.show()
    QTimer.singleShot(LONGEST * 1000, application.quit)
    application.exec()
    if not found.get("loaded"):
        print(f"{job['url']} did not load", file=sys.stderr, flush=True)
        os._exit(1)
    print(json.dumps(found.get("value")), flush=True)
    os._exit(0)  # the engine's own threads take their time to end


if __name__ == "__main__":
    sys.exit(_show(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
