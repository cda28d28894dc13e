"""Time that a test lets pass."""


class Clock:
    """A clock that stands until somebody sleeps by it, or sets it.

    Attributes:
        now_s: What it shows.
        slept_s: How long everybody slept, in order.
    """

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self.slept_s: list[float] = []

    def __call__(self) -> float:
        """Return what it shows."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass at once."""
        self.slept_s.append(seconds)
        self.now_s += seconds
