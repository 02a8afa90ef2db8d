"""Users who ask a gateway all the time while something is done to it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.photos import photo

IMAGES = [photo(seed, 64, 48) for seed in range(30)]


class Users:
    """Two clients that ask all the time, until told to end; what they saw."""

    def __init__(self, url: str) -> None:
        self.answers: list[tuple[int, str]] = []  # status and model
        self._url = url
        self._end = threading.Event()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=60) as client:
            number = 0
            while not self._end.is_set():
                response = client.post("/classify", content=IMAGES[number % len(IMAGES)])
                self.answers.append((response.status_code, response.json().get("model", "")))
                number += 1
                time.sleep(0.005)

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in threads:
                thread.join()
