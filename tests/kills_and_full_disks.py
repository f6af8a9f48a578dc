"""Processes that are killed and disks that are full: no file is lost, and the work can go on.

    python tests/kills_and_full_disks.py       20 kills
    python tests/kills_and_full_disks.py 3     fewer

Kills come at random moments of a fixed seed. The full disk is a small tmpfs where the user may
mount one, and a limit of the size of a file elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rbpp import inference_data

KILLS = 20
ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--chains", "2", "--draws", "60", "--device", "cpu", "--quiet"]
FIT = ["fit", "rows.npy", "--components", "2", "--stream", "--points", "64", *SMALL]
KEPT = ["--output", "fit.nc", "--checkpoint", "steps"]
ASSESS = ["assess", "--target", "rows.npy", "--synthetic", "other.npy", *SMALL[:-1]]
WRITTEN = {"--output": "found.nc", "--report": "report.html", "--rows": "found.parquet"}


def command(folder: Path, arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """The command, under way in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "rbpp", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def make_rows(folder: Path) -> None:
    """Rows for both commands."""
    random = np.random.default_rng(0)
    np.save(folder / "rows.npy", random.normal(size=(3000, 4)))
    np.save(folder / "other.npy", random.normal(size=(300, 4)))


def draws(path: Path) -> np.ndarray:
    """The entropies in a file that has been written."""
    return np.asarray(inference_data.terms_of(inference_data.read(path))["entropy"])


def kills(folder: Path, count: int, seed: int = 0) -> list[str]:
    """What kills at random moments have cost: a file that cannot be read, work, other numbers."""
    make_rows(folder)
    started = time.monotonic()
    if command(folder, [*FIT, *KEPT]).wait() != 0:
        return ["the command itself failed"]
    whole = time.monotonic() - started
    expected = draws(folder / "fit.nc")
    random, found = np.random.default_rng(seed), []
    for number in range(count):
        for step in (folder / "steps").glob("*.npz"):
            if random.random() < 0.5:
                step.unlink()  # some of the work is still to be done
        process = command(folder, [*FIT, *KEPT])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            same = np.array_equal(draws(folder / "fit.nc"), expected)
        except (ValueError, OSError) as error:
            found.append(f"kill {number}: fit.nc cannot be read: {error}")
            continue
        if not same:
            found.append(f"kill {number}: fit.nc has other numbers")
    process = command(folder, [*FIT, *KEPT])
    _, error = process.communicate()
    if process.returncode != 0 or not np.array_equal(draws(folder / "fit.nc"), expected):
        found.append(f"after the kills: status {process.returncode}, {error.decode()[:300]}")
    return found


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[Callable[[], None] | None]:
    """A folder on a disk with room for little; what a process has to call first, if anything."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if mounted.returncode == 0:
        try:
            yield None
        finally:
            subprocess.run(["umount", folder], check=True)
        return

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    yield limited


def full_disks(folder: Path) -> list[str]:
    """What a full disk has cost: old files, the table, a line that says so, or files of no use."""
    place = folder / "disk"
    place.mkdir()
    make_rows(folder)
    found = []
    with full_disk(place) as first:
        for name in WRITTEN.values():
            (place / name).write_bytes(b"old")
        with contextlib.suppress(OSError), (place / "ballast").open("wb", buffering=0) as ballast:
            while first is None:
                ballast.write(bytes(1024))
        outputs = [part for key, name in WRITTEN.items() for part in (key, f"disk/{name}")]
        process = command(folder, [*ASSESS, *outputs], preexec_fn=first)
        output, error = process.communicate()
        if process.returncode != 2:
            found.append(f"a full disk: status {process.returncode} in place of 2")
        if b"off-task" not in output:
            found.append("a full disk: no table")
        for name in WRITTEN.values():
            if (place / name).read_bytes() != b"old":
                found.append(f"a full disk: {name} is not what it was")
            if f"cannot write disk/{name}" not in error.decode():
                found.append(f"a full disk: no line about {name}: {error.decode()[:300]}")
        left = {path.name for path in place.iterdir()} - {*WRITTEN.values(), "ballast"}
        found += [f"a full disk: {name} is left behind" for name in sorted(left)]
    return found


def main() -> int:
    """Print everything that was lost; 1 where something was."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        found = kills(Path(folder), count) + full_disks(Path(other))
    print("\n".join(found))
    print(f"{count} kills and a full disk: {len(found)} losses")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
