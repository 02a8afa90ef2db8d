"""Why published weights cannot be had."""


class DownloadError(Exception):
    """Published weights cannot be had, or are not what was published; one sentence for the user."""


class UnreachableError(DownloadError):
    """Nobody answers at `url`, or not with the file; it may be had from elsewhere."""

    def __init__(self, url: str, why: object) -> None:
        text = str(why).strip() or repr(why)
        self.url, self.reason = url, text.splitlines()[0].rstrip(".")
        super().__init__(f"{url} cannot be downloaded ({self.reason})")
