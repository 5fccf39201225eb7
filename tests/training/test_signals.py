"""A request to stop is honoured, wherever the signal finds the process."""

import os
import signal
import time

import pytest

from aprm_jax.training.signals import Interrupted, prompt_stop


class _Swallows:
    """Its end is a callback: Python ignores what a signal handler raises in it."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def _wait():
    end = time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(0.01)


def test_a_signal_stops_at_once():
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        text = rf"{number.name}\. Go on"
        with pytest.raises(Interrupted, match=text) as caught, prompt_stop("Go on"):
            os.kill(os.getpid(), number)
            _wait()
        assert caught.value.code == code


def test_a_signal_inside_a_callback_is_not_lost():
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"SIGTERM\. Go on"), prompt_stop("Go on"):
        _Swallows()
        _wait()
    assert signal.getsignal(signal.SIGTERM) is handler
