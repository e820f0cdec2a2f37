"""Signals as requests to stop."""

import os
import signal
import threading

import pytest

from osmose.engine.interrupt import interruptions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_only_asks(number):
    before = signal.getsignal(number)
    with interruptions() as stop:
        assert stop() == 0
        os.kill(os.getpid(), number)
        assert stop() == number
        assert stop() == number
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_is_not_ignored():
    before = signal.getsignal(signal.SIGINT)
    with interruptions() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_caught():
    found = []

    def work():
        with interruptions() as stop:
            found.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [0]
