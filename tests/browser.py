"""A page in Chromium, by PyQt6-WebEngine, in a process of its own: `python browser.py JOB.json`.

The job has `url`, `width`, `height`, and of `script` (JavaScript whose value comes back),
`picture` (a PNG of what is in sight), `paper` (a PDF) and `dark` what is wanted. Its value is printed as
JSON. Tests call `browse`, which skips where there is no browser.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LONGEST = 60  # seconds that a page may take


def browse(folder: Path, url: str, width: int = 1280, **job: Any) -> Any:
    """The value of `script` on the page; see the module for the keys of a job."""
    if importlib.util.find_spec("PyQt6") is None:
        pytest.skip("no browser: pip install PyQt6-WebEngine")
    path = folder / "job.json"
    path.write_text(json.dumps({"url": url, "width": width, **job}), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, __file__, path], capture_output=True, text=True, timeout=2 * LONGEST
    )
    if done.returncode == 3:
        pytest.skip(f"the browser does not start: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _show(job: dict[str, Any]) -> int:
    os.environ.update(QT_QPA_PLATFORM="offscreen", QTWEBENGINE_DISABLE_SANDBOX="1")
    flags = "--disable-gpu --disable-background-networking"
    flags += " --blink-settings=preferredColorScheme=" + ("0" if job.get("dark") else "1")
    os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = flags
    try:
        from PyQt6.QtCore import QMarginsF, QTimer, QUrl
        from PyQt6.QtGui import QPageLayout, QPageSize
        from PyQt6.QtWebEngineWidgets import QWebEngineView
        from PyQt6.QtWidgets import QApplication
    except ImportError as error:
        print(error, file=sys.stderr)
        return 3
    application = QApplication([sys.argv[0]])
    view = QWebEngineView()
    view.resize(job["width"], job.get("height", 900))
    found: dict[str, Any] = {"value": None}

    def ready(_: bool) -> None:
        QTimer.singleShot(300, run)

    def run() -> None:
        view.page().runJavaScript(job.get("script", "null"), after)

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

    view.loadFinished.connect(ready)
    view.load(QUrl(job["url"]))
    view.show()
    QTimer.singleShot(LONGEST * 1000, application.quit)
    application.exec()
    print(json.dumps(found["value"]), flush=True)
    os._exit(0)  # the engine's own threads take their time to end


if __name__ == "__main__":
    sys.exit(_show(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
