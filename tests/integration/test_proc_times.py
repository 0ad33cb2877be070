"""Processor time of processes, read from /proc."""

import os
import subprocess
import sys
import time

import pytest

from data_plane.proc_times import processor_time


def test_it_is_what_the_process_itself_says() -> None:
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert processor_time(os.getpid()) == pytest.approx(sum(os.times()[:4]), abs=0.1)


def test_another_process_is_seen_while_it_computes() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            deadline = time.monotonic() + 30
            while processor_time(child.pid) < 0.3:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            child.kill()


def test_a_process_that_is_gone_used_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert processor_time(child.pid) == 0.0
