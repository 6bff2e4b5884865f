"""A real S3 server for as long as a command runs: Ceph's RADOS gateway, from Debian's packages.

`python -m stedi_assets_tests.s3_server pytest -m s3` gives the command its address and credentials.
One node, on loopback, that keeps everything in memory; whatever ends the script ends the server.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PACKAGES = {"ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd", "radosgw": "radosgw"}
"""Of Debian, by the program of each that is started here."""

ACCESS_KEY, SECRET_KEY = "stedi-tests", "stedi-tests-secret"
PATIENCE = 60
"""Seconds within which each part of it has to be there; all of it takes twelve."""

_SETTINGS = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{ports[0]},v1:127.0.0.1:{ports[1]}]
public addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {folder}/keyring
run dir = {folder}
admin socket = {folder}/$name.socket
log file = {folder}/$name.log
mon data = {folder}/mon
mon data avail crit = 1
mon data avail warn = 2
mon allow pool size one = true
mon max pg per osd = 1000
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 8589934592
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
setuser match path =
[client.rgw]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{ports[2]} tcp_nodelay=1
rgw dynamic resharding = false
"""


class ServerError(Exception):
    """There is no server; says why."""


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """A server with no bucket; the settings that lead tests to it.

    Args:
        folder: an empty one, in which the server may leave things.

    Raises:
        ServerError: packages are missing, or it does not come up.
    """
    if missing := [package for program, package in PACKAGES.items() if not shutil.which(program)]:
        raise ServerError(f"Ceph is not installed: apt-get install {' '.join(missing)}")
    ports = _free_ports(3)
    endpoint = f"http://127.0.0.1:{ports[2]}"
    settings = folder / "ceph.conf"
    fsid, osd = uuid.uuid4(), uuid.uuid4()
    settings.write_text(_SETTINGS.format(folder=folder, fsid=fsid, ports=ports))

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [program, "-c", str(settings), *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise ServerError(f"{program} {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    with ExitStack() as at_end:

        def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
            # The kernel kills it with this process, however that ends: there is nothing to save.
            die_with_us = ["setpriv", "--pdeathsig", "KILL"]
            log = at_end.enter_context((folder / f"{program}.out").open("wb"))
            process = subprocess.Popen(
                [*die_with_us, program, "-c", str(settings), *arguments, "-f"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # which Ctrl-C in a terminal does not reach
            )
            at_end.callback(process.wait)
            at_end.callback(process.kill)
            return process

        _make_keys(folder)
        monitors = str(folder / "monmap")
        address = f"[v2:127.0.0.1:{ports[0]},v1:127.0.0.1:{ports[1]}]"
        run("monmaptool", "--create", "--fsid", str(fsid), "--addv", "a", address, monitors)
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", f"{folder}/mon.key")
        start("ceph-mon", "-i", "a")
        run("ceph", "osd", "new", str(osd))
        (folder / "osd").mkdir()
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", str(osd))
        start("ceph-osd", "-i", "0")
        _wait_until("the OSD is up", lambda: "1 up" in run("ceph", "osd", "stat"))
        gateway = start("radosgw", "-n", "client.rgw")
        _wait_until("the gateway answers", lambda: _answers(endpoint, gateway))
        user = ("--uid=tests", "--display-name=tests")
        keys = (f"--access-key={ACCESS_KEY}", f"--secret={SECRET_KEY}")
        run("radosgw-admin", "-n", "client.rgw", "user", "create", *user, *keys)
        yield {
            "STEDI_TEST_S3_ENDPOINT": endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }


def _make_keys(folder: Path) -> None:
    """What the parts of the cluster prove to each other by who they are."""
    everything = {"mon": "allow *", "osd": "allow *"}
    for keyring, name, rights in (
        ("mon.key", "mon.", {"mon": "allow *"}),
        ("keyring", "client.admin", everything),
        ("keyring", "client.rgw", everything),
        ("keyring", "osd.0", {"mon": "allow profile osd", "osd": "allow *"}),
    ):
        path = folder / keyring
        create = [] if path.exists() else ["--create-keyring"]
        caps = [word for of, right in rights.items() for word in ("--cap", of, right)]
        command = ["ceph-authtool", *create, str(path), "--gen-key", "-n", name, *caps]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    imported = ["--import-keyring", str(folder / "keyring")]
    command = ["ceph-authtool", str(folder / "mon.key"), *imported]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _answers(endpoint: str, gateway: subprocess.Popen[bytes]) -> bool:
    if gateway.poll() is not None:
        raise ServerError(f"radosgw ended with {gateway.returncode}")
    try:
        with urllib.request.urlopen(endpoint, timeout=PATIENCE):
            return True
    except urllib.error.URLError:
        return False


def _wait_until(what: str, came: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not came():
        if time.monotonic() > until:
            raise ServerError(f"not within {PATIENCE} seconds: {what}")
        time.sleep(0.1)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as at_end:
        listening = [
            at_end.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [each.getsockname()[1] for each in listening]


def main(command: list[str]) -> int:
    """Run a command with a server; its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="stedi-s3-", ignore_cleanup_errors=True) as folder,
            s3_server(Path(folder)) as settings,
        ):
            return subprocess.run(command, env={**os.environ, **settings}).returncode
    except ServerError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
