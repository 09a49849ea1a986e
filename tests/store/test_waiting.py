"""Buckets that never end to answer: bounded by counts and time, and interruptible."""

import os
import signal
import subprocess
import sys
import time

import pytest

from jumpgpu.storage import buckets
from jumpgpu.storage.buckets import RemotePath
from tests.conftest import CHECKOUT

PLACE = RemotePath("bucket", "plates")


class Repeating:
    """A store whose listing never ends: the same page again and again."""

    pages = 0

    def list(self, prefix, chunk_size):
        while True:
            self.pages += 1
            yield [{"path": f"plates/{n}", "size": 1, "e_tag": None} for n in range(chunk_size)]

    def list_with_delimiter(self, prefix):
        time.sleep(600)


def test_a_listing_that_repeats_itself_ends(monkeypatch):
    store = Repeating()
    monkeypatch.setattr(buckets, "connected", lambda path, tries: store)
    with pytest.raises(ConnectionError, match=r"s3://bucket/plates: its listing repeats itself from plates/0 on"):
        PLACE.listing(deep=True)
    assert store.pages == 2


def test_an_answer_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr(buckets, "connected", lambda path, tries: Repeating())
    monkeypatch.setattr(buckets, "LEVEL_S", 0.7)
    started = time.monotonic()
    with pytest.raises(ConnectionError, match="no end of an answer"):
        PLACE.listing()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("how", ["PLACE.listing()", "list(buckets.in_parallel(lambda place: place.listing(), [PLACE] * 3))"])
def test_whoever_waits_for_a_bucket_can_be_interrupted(how):
    program = (
        "from tests.store.test_waiting import *\nfrom jumpgpu.cli.exit_status import run_command\n"
        "buckets.connected = lambda path, tries: Repeating()\n"
        f"def main(arguments):\n    print('at work', flush=True)\n    {how}\n    return 0\n"
        "sys.exit(run_command(main))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert b"at work" in process.stdout.readline()
            time.sleep(1)
            stopped = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 75, said
    assert time.monotonic() - stopped < 5
