"""A payload that counts signals: ``signal_counter.py SECONDS SIGNAL...``.

It says ``up`` when it listens. Some time after the first signal it prints each name
with the number of times that it came, and ends.
"""

import signal
import sys
import time
from types import FrameType

counts: dict[str, int] = {}


def _count(number: int, _frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    counts[name] = counts.get(name, 0) + 1


for word in sys.argv[2:]:
    signal.signal(signal.Signals[word], _count)
sys.stdout.write("up\n")
sys.stdout.flush()
while not counts:
    time.sleep(0.01)
end_s = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end_s:
    time.sleep(0.01)
sys.stdout.write(" ".join(f"{name}={counts[name]}" for name in sorted(counts)) + "\n")
