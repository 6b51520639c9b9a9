"""The signal to stop is heard, whichever thread the system gives it to."""

import subprocess
import sys

GIVEN_TO_ANOTHER_THREAD = """
import signal, sys, threading, time
from yeondong.cli.run import _Signals

signals = _Signals()
main = threading.get_ident()

def hear():
    while sys._current_frames()[main].f_code is not _Signals.wait.__code__:
        time.sleep(0.01)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(30)

threading.Thread(target=hear, daemon=True).start()
signals.wait()
print("heard")
"""


def test_a_signal_that_another_thread_is_given_stops_the_program() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", GIVEN_TO_ANOTHER_THREAD], capture_output=True, text=True, timeout=20, check=False
    )

    assert ran.stdout == "heard\n", ran.stderr
