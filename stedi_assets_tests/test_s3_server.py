"""The S3 server of the tests itself: what it says without Ceph, and what it leaves behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

SCRIPT = [sys.executable, "-m", "stedi_assets_tests.s3_server"]


def test_without_ceph_it_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [*SCRIPT, "true"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    says = "Error: Ceph is not installed: apt-get install ceph-mon ceph-osd radosgw\n"
    assert (done.returncode, done.stderr) == (1, says)


@pytest.mark.long
@pytest.mark.s3
@pytest.mark.skipif(not shutil.which("radosgw"), reason="Ceph is not installed")
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_it_ends_all_of_its_processes(tmp_path: Path, by: signal.Signals) -> None:
    process = subprocess.Popen(
        [*SCRIPT, "sh", "-c", "echo $STEDI_TEST_S3_ENDPOINT; read forever"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        assert len(processes(tmp_path)) == 3
        process.send_signal(by)
        process.wait(timeout=60)
    until = time.monotonic() + 60
    while living := processes(tmp_path):
        assert time.monotonic() < until, living
        time.sleep(0.1)
    if by is signal.SIGTERM:
        assert list(tmp_path.iterdir()) == []


def processes(folder: Path) -> list[str]:
    """The commands of those that work on a folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            found.append(file.read_bytes().replace(b"\0", b" ").decode())
    return [command for command in found if str(folder) in command]
