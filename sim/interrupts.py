"""Ctrl-C as one exception, whatever library it meets."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise KeyboardInterrupt for every error that follows a Ctrl-C inside the block.

    Libraries answer an interrupt with errors of their own: DuckDB raises RuntimeError("Query interrupted"), which would
    look like a failed run. Blocks may be nested; outside the main thread, or where Ctrl-C is ignored, nothing changes.

    Raises
    ------
    KeyboardInterrupt : Ctrl-C was pressed inside the block and ended it, directly or through a library's error.

    Examples
    --------
    >>> with stoppable():
    ...     print("working")
    working
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = True
        before(number, frame)

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    except Exception as error:
        if heard:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
