"""Work shared among threads or processes, whose results come in the order of the work."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from qdqc.diagnostics import QdqcError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

    Pipe: TypeAlias = Connection[Any, Any]

__all__ = ["can_fork", "in_processes", "in_threads"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_TRIES = 3
"""Workers that die over the same item before it is given up."""

_DONE, _REFUSED, _BROKEN = b"d", b"r", b"b"
"""What begins an answer: a result, a QdqcError as JSON, or the trace of a defect."""


def in_threads(
    task: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    threads: int,
    stop: threading.Event,
) -> Iterator[ResultT]:
    """The results of a task, in the order of the items; one more item waits than threads work.

    ``stop`` is set when the results are left before their end, so that tasks that look at it
    end early. What the task or the items raise comes up here.
    """
    pending: deque[Future[ResultT]] = deque()
    with ThreadPoolExecutor(threads, "calibration") as pool:
        try:
            for item in items:
                pending.append(pool.submit(task, item))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            stop.set()
            for future in pending:
                future.cancel()


def can_fork() -> bool:
    """Whether this system makes a process by copying another."""
    import multiprocessing

    return "fork" in multiprocessing.get_all_start_methods()


def in_processes(
    task: Callable[[int], bytes], numbers: Iterable[int], workers: int
) -> Iterator[bytes]:
    """As ``in_threads``, by forked processes, which share the memory that is not written to.

    The work of a process that dies is given to a new one. Raises QdqcError when three have died
    over the same number.
    """
    with _pool(task, workers) as pool:
        todo = iter(numbers)
        results: dict[int, bytes] = {}
        order: deque[int] = deque()
        while True:
            while len(order) < 2 * workers and pool.idle:
                number = next(todo, None)
                if number is None:
                    break
                order.append(number)
                pool.give(number)
            if not order:
                return
            results.update(pool.wait())
            while order and order[0] in results:
                yield results.pop(order.popleft())


@contextlib.contextmanager
def _pool(task: Callable[[int], bytes], workers: int) -> Generator[_Pool]:
    pool = _Pool(task)
    try:
        for _ in range(workers):
            pool.start()
        yield pool
    finally:
        pool.end()


class _Pool:
    """Processes and what each of them works on; ``idle`` are those without work."""

    def __init__(self, task: Callable[[int], bytes]) -> None:
        self._task = task
        self._processes: dict[Pipe, ForkProcess] = {}
        self._work: dict[Pipe, int] = {}
        self._deaths: Counter[int] = Counter()
        self.idle: list[Pipe] = []

    def start(self) -> None:
        import multiprocessing

        context = multiprocessing.get_context("fork")
        ours, theirs = cast(tuple[Any, Any], context.Pipe())
        others = [*self._processes, ours]
        process = context.Process(target=_serve, args=(self._task, theirs, others), daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process
        self.idle.append(ours)

    def give(self, number: int) -> None:
        """Give an item to an idle process."""
        worker = self.idle.pop()
        self._work[worker] = number
        with contextlib.suppress(OSError):  # a dead worker shows when its answer is waited for
            worker.send_bytes(str(number).encode())

    def wait(self) -> dict[int, bytes]:
        """Results that came in; waits for one at least, or for a death. Raises QdqcError."""
        from multiprocessing.connection import wait

        results: dict[int, bytes] = {}
        ready = wait(list(self._work))
        for worker in [w for w in self._work if w in ready]:
            number = self._work.pop(worker)
            try:
                answer = worker.recv_bytes()
            except (EOFError, OSError):
                self._replace(worker, number)
                continue
            results[number] = _result(answer)
            self.idle.append(worker)
        return results

    def end(self) -> None:
        """End all processes and wait for them."""
        for worker, process in self._processes.items():
            worker.close()
            process.terminate()
        for process in self._processes.values():
            process.join()

    def _replace(self, worker: Connection, number: int) -> None:
        process = self._processes.pop(worker)
        worker.close()
        process.join()
        self._deaths[number] += 1
        if self._deaths[number] == _TRIES:
            raise QdqcError(
                f"{_TRIES} worker processes died over the same samples, the last with exit code "
                f"{process.exitcode}",
                notes=["the system may lack memory for them: give fewer `workers`"],
            )
        self.start()
        self.give(number)


def _serve(task: Callable[[int], bytes], pipe: Pipe, others: Iterable[Pipe]) -> None:
    """The life of a worker: it ends with its parent, which alone receives an interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not as its parent, which cleans up
    for other in others:
        other.close()
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(_answer(task, int(pipe.recv_bytes())))


def _answer(task: Callable[[int], bytes], number: int) -> bytes:
    try:
        return _DONE + task(number)
    except QdqcError as error:
        diagnostic = error.diagnostic
        return (
            _REFUSED + json.dumps([diagnostic.message, diagnostic.file, diagnostic.notes]).encode()
        )
    except MemoryError:
        diagnostic = ["not enough memory for the worker processes", None, ["give fewer `workers`"]]
        return _REFUSED + json.dumps(diagnostic).encode()
    except Exception:
        return _BROKEN + traceback.format_exc().encode()


def _result(answer: bytes) -> bytes:
    """The result in an answer. Raises the QdqcError of the worker, RuntimeError for a defect."""
    kind, content = answer[:1], answer[1:]
    if kind == _REFUSED:
        message, file, notes = json.loads(content)
        raise QdqcError(message, file=file, notes=notes)
    if kind == _BROKEN:
        raise RuntimeError(f"in a worker process:\n{content.decode(errors='replace')}")
    return content
