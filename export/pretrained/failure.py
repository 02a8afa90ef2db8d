"""The errors of a download of published weights."""


class DownloadError(Exception):
    """Weights cannot be downloaded or are not the published ones; one sentence for the user."""


class UnreachableError(DownloadError):
    """No server answers at `url`, or not with the file; another source may have it."""

    def __init__(self, url: str, why: object) -> None:
        text = str(why).strip() or repr(why)
        self.url, self.reason = url, text.splitlines()[0].rstrip(".")
        super().__init__(f"{url} cannot be downloaded ({self.reason})")
