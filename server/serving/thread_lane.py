"""The lane of threads: images whose decoding is short, whatever is in them.

In: work of little CPU and memory. Out: pixels. A thread adds no cost, but cannot be ended: what it
has begun, it finishes.
"""

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor

from server.host.niceness import lower_priority
from server.problems import UnreadableImage
from server.serving.images.decoding import decode, open_header
from server.serving.lanes import Decoded, Lane, Work

# So many images are ready for each thread, so that it goes on without waiting for the event loop.
READY = 1


class ThreadLane(Lane):
    """Threads that decode. Close it at the end."""

    def __init__(self, threads: int, max_pixels: int) -> None:
        super().__init__("threads", threads, READY * threads)
        self._max_pixels = max_pixels
        self._executor = ThreadPoolExecutor(
            threads, thread_name_prefix="decode", initializer=lower_priority
        )

    def close(self) -> None:
        """Give up waiting images; end the threads after their images."""
        self.closed = True
        self._executor.shutdown(cancel_futures=True)

    def _start(self, work: Work) -> None:
        self._begin(work)
        loop = asyncio.get_running_loop()
        work.job = job = self._executor.submit(self._run, work)
        job.add_done_callback(lambda job: loop.call_soon_threadsafe(self._ended, work, job))

    def _stop(self, work: Work) -> None:
        if work.job is not None and work.job.cancel():  # no thread has begun it
            work.data = b""

    def _run(self, work: Work) -> Decoded:
        """What a thread does."""
        began = time.perf_counter()
        data, work.data = work.data, b""
        image = open_header(data, self._max_pixels)
        if image.width * image.height > work.price.width * work.price.height:
            raise UnreadableImage("the image is larger than its header says; save it anew")
        work.count(image.width * image.height)
        pixels = decode(image, work.rule)
        return Decoded(pixels, began - work.submitted, time.perf_counter() - began)

    def _ended(self, work: Work, job: "Future[Decoded]") -> None:
        if job.cancelled():  # given up before it began, by its request or by `close`
            self._end(work, 0.0)
            work.answer.cancel()
            return
        # The job holds its callback, which holds the work: the pixels would stay until the next
        # garbage collection.
        work.job = None
        self._end(work, work.price.seconds)
        work.settle(job.exception() or job.result())
