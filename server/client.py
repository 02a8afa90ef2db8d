"""`python -m server classify IMAGE…`: classifies files through a running gateway.

In: files, folders or patterns, and the gateway's address. Out: a table, or with --json one line of
JSON per image, in the order given. Exits with 0 when every image was classified, 1 when one was
not, 2 when no gateway could be asked.
"""

import contextlib
import glob
import ipaddress
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, SettingsConfigDict
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from contracts.images.folders import find_images
from server.settings import CLI, CLIENT_PREFIX, OF_PYDANTIC

Answer = dict[str, Any]
MOST_NAMES = 10  # images that are named below one error


class Ask(BaseSettings):
    """The options of every command that asks a gateway about images."""

    model_config = SettingsConfigDict(
        env_prefix=CLIENT_PREFIX,
        env_prefix_target="all",
        **CLI,
    )

    images: CliPositionalArg[list[str]] = Field(
        description="Files, folders (and those within), or patterns such as 'photos/**/*.jpg'."
    )
    url: str = Field("http://127.0.0.1:8000", description="Address of the gateway.")
    model: str | None = Field(None, description="Model to ask; the gateway's default if absent.")
    key: SecretStr | None = Field(
        None, description="API key; better in the variable MIXER_CLIENT_KEY, where nobody sees it."
    )
    as_json: bool = Field(False, alias="json", description="One line of JSON per image.")
    parallel: int = Field(8, ge=1, le=256, description="Requests under way at once.")
    timeout: float = Field(60.0, gt=0, description="Seconds to wait for each answer.")

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        parts = urllib.parse.urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ValueError("should be an address such as http://127.0.0.1:8000")
        return value.rstrip("/")


class Classify(Ask):
    """Classify images through a running gateway; `python -m server` starts one."""

    model_config = SettingsConfigDict(cli_prog_name="python -m server classify")

    top_k: int | None = Field(
        None, ge=1, description="Labels per image; without, 5, or all where there are fewer."
    )


class NoAnswerError(Exception):
    """The gateway did not give what was asked for; the message says why."""


Options = TypeVar("Options", bound=Ask)


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = options_of(Classify, arguments)
    files = [] if options is None else files_of(options)
    if options is None or not files:
        return 2
    errors = Console(stderr=True)
    with answers(files, options, ask, "Classifying") as each:
        results = [*_printed(each)] if options.as_json else [*each]
    if not options.as_json:
        console = Console()
        if any("error" not in result for result in results):
            console.print(table(results))
        for line in problems(results):
            console.print(line, soft_wrap=True, highlight=False)
    failed = [result for result in results if "error" in result]
    if failed:
        errors.print(f"{len(failed)} of {len(results)} were not classified", style="red")
    return status_of(results, options)


def options_of(kind: type[Options], arguments: Sequence[str]) -> Options | None:
    """A command's options from its flags and the environment; None after printing what is wrong."""
    # A variable may be meant for another of the commands.
    commands = Ask.__subclasses__()
    fields = {name: f for each in commands for name, f in each.model_fields.items()}
    known = {(CLIENT_PREFIX + (field.alias or name)).upper() for name, field in fields.items()}
    unknown = [n for n in os.environ if n.startswith(CLIENT_PREFIX) and n not in known]
    if unknown:
        print(f"{', '.join(unknown)}: no setting has this name; see --help", file=sys.stderr)
        return None
    try:
        return CliApp.run(kind, cli_args=list(arguments))
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0]).replace("_", "-")
            message = problem["msg"].removeprefix(OF_PYDANTIC)
            print(f"--{name}: {message}; got {problem['input']!r}", file=sys.stderr)
        return None


def files_of(options: Ask) -> list[Path | str]:
    """The files that the options name; an empty list, after a message, if none is an image."""
    files = [file for name in options.images for file in find(name)]
    if not any(isinstance(file, Path) for file in files):
        print(f"no image in {', '.join(options.images)}", file=sys.stderr)
        return []
    return files


@contextlib.contextmanager
def answers(
    files: Sequence[Path | str],
    options: Options,
    ask: Callable[[Path | str, Options], Answer],
    doing: str,
) -> Iterator[Iterable[Answer]]:
    """The answer for each file, in their order; several requests are under way at once."""
    with (
        ThreadPoolExecutor(options.parallel) as threads,
        # Shown on a terminal only, and gone at the end.
        Progress(console=Console(stderr=True), transient=True, disable=len(files) < 2) as progress,
    ):
        yield progress.track(
            threads.map(lambda file: ask(file, options), files),
            total=len(files),
            description=doing,
        )


def find(name: str) -> Sequence[Path | str]:
    """The files of one name: all images in a folder, a pattern's matches, or the name itself.

    A folder or a pattern without images gives its own name, as a string: its error is shown beside
    the answers for other files, as is the error of a file that does not exist.
    """
    path = Path(name)
    if path.is_dir():
        return find_images(path)[0] or [name]
    if path.exists() or not glob.has_magic(name):
        return [path]
    matches = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return [match for match in sorted(matches) if match.is_file()] or [name]


def ask(file: Path | str, options: Classify) -> Answer:
    """The gateway's answer for one file, with its name; or its name and an `error`."""
    query = {} if options.top_k is None else {"top_k": str(options.top_k)}
    try:
        return {"file": str(file), **json.loads(post(file, options, "/classify", query))}
    except (NoAnswerError, ValueError) as error:
        return {"file": str(file), "error": str(error)}


def post(
    file: Path | str, options: Ask, path: str, query: dict[str, str], accept: str = "*/*"
) -> bytes:
    """The body of the answer to a file that is sent as it is; raises `NoAnswerError`."""
    if isinstance(file, str):
        raise NoAnswerError("no image is meant by this")
    headers = {"Content-Type": "application/octet-stream", "Accept": accept}
    if options.model is not None:
        query = query | {"model": options.model}
    if options.key is not None:
        headers["Authorization"] = f"Bearer {options.key.get_secret_value()}"
    try:
        request = urllib.request.Request(  # noqa: S310 - the scheme has been checked
            f"{options.url}{path}?{urllib.parse.urlencode(query)}",
            data=file.read_bytes(),
            headers=headers,
        )
        with opener(options.url).open(request, timeout=options.timeout) as response:
            body: bytes = response.read()
    except urllib.error.HTTPError as error:
        raise NoAnswerError(_detail(error)) from None
    except urllib.error.URLError as error:
        raise NoAnswerError(f"{away(options)}: {error.reason}") from None
    except OSError as error:  # its own words without the file's name, which stands beside them
        raise NoAnswerError(error.strerror or str(error) or type(error).__name__) from None
    except HTTPException as error:
        raise NoAnswerError(str(error) or type(error).__name__) from None
    return body


def opener(url: str) -> urllib.request.OpenerDirector:
    """The opener of URLs for this gateway; it uses no proxy if the gateway is on this machine."""
    try:
        here = ipaddress.ip_address(urllib.parse.urlsplit(url).hostname or "").is_loopback
    except ValueError:
        here = urllib.parse.urlsplit(url).hostname == "localhost"
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))


def table(results: Sequence[Answer]) -> Table:
    """Each image that was classified with its labels, most probable first."""
    shown = Table("image", "label", "probability", highlight=False)
    shown.columns[0].overflow = "fold"
    shown.columns[2].justify = "right"
    for result in results:
        name = escape(result["file"])
        for prediction in result.get("predictions", []):
            label, probability = prediction["label"], prediction["probability"]
            shown.add_row(name, escape(label), f"{100 * probability:.1f} %")
            name = ""
    return shown


def problems(results: Sequence[Answer]) -> Iterator[str]:
    """A line for each error, once, and below it the images that it is about, in rich's markup."""
    files: dict[str, list[str]] = {}
    for result in results:
        if "error" in result:
            files.setdefault(result["error"], []).append(result["file"])
    for error, names in files.items():
        yield f"[red]{escape(error)}[/red]"
        yield from (f"  {escape(name)}" for name in names[:MOST_NAMES])
        if len(names) > MOST_NAMES:
            yield f"  and {len(names) - MOST_NAMES} more"


def _printed(answers: Iterable[Answer]) -> Iterator[Answer]:
    for answer in answers:
        print(json.dumps(answer, ensure_ascii=False), flush=True)
        yield answer


def status_of(results: Sequence[Answer], options: Ask) -> int:
    """0 if no result has an error, 2 if no gateway answered any request, else 1.

    Prints how to start a gateway if none answered.
    """
    failed = [result["error"] for result in results if "error" in result]
    nobody = any(error.startswith(away(options)) for error in failed)
    if nobody and len(failed) == len(results):
        start = "`make serve` or `docker compose up` starts one; --url has another's address"
        print(f"no gateway at {options.url}: {start}", file=sys.stderr)
        return 2
    return int(bool(failed))


def away(options: Ask) -> str:
    """The beginning of an error if nothing answers at the address."""
    return f"{options.url} does not answer"


def _detail(error: urllib.error.HTTPError) -> str:
    """What the gateway says was wrong, or at least the status."""
    with error, contextlib.suppress(ValueError, KeyError, TypeError, TimeoutError):
        detail = json.load(error)["detail"]
        how = "; here: --key KEY, or MIXER_CLIENT_KEY" if error.code == 401 else ""
        return f"{error.code}: {detail}{how}"
    return f"{error.code} {error.reason}"
