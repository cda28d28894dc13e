"""Questions to file systems that may hang: asked by children that can be left alone.

A process that waits for a dead server is stuck in the kernel, and not even KILL frees
it. So a child asks, and if no answer comes in time, nobody waits for it any more.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Mapping

PATIENCE_S = 2.0
"""What a server has to answer in before it counts as dead."""


def ask(
    questions: Mapping[str, Callable[[], bytes]], patience_s: float = PATIENCE_S
) -> dict[str, bytes]:
    """Put questions to servers that may never answer; no answer is an empty one.

    Args:
        questions: By a name; each is called in a process of its own, which holds
            nothing but standard error. What it raises counts as no answer.
        patience_s: How long all of them are waited for.
    """
    asked = {name: _fork(question) for name, question in questions.items()}
    deadline_s = time.monotonic() + patience_s
    return {
        name: _listen(pid, answer, deadline_s) for name, (pid, answer) in asked.items()
    }


def _fork(question: Callable[[], bytes]) -> tuple[int, int]:
    answer_out, answer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(answer)
        return pid, answer_out
    try:
        # Where it hangs not even KILL ends it: it must hold nothing of the user's.
        os.closerange(0, answer)
        os.closerange(answer + 1, 1 << 20)
        os.write(answer, question())
    except BaseException:  # noqa: BLE001, S110 -- the border of a process; no answer
        pass
    finally:
        os._exit(0)


def _listen(pid: int, answer_out: int, deadline_s: float) -> bytes:
    received = b""
    arrival = select.poll()
    arrival.register(answer_out, select.POLLIN)
    has_ended = False
    while not has_ended and arrival.poll(
        max(deadline_s - time.monotonic(), 0.0) * 1000
    ):
        data = os.read(answer_out, 1 << 16)
        has_ended = not data
        received += data
    os.close(answer_out)
    if has_ended:
        os.waitpid(pid, 0)
        return received
    # It hangs in the kernel, where it ends when it is answered. Nobody can wait for it.
    os.kill(pid, signal.SIGKILL)
    return b""
