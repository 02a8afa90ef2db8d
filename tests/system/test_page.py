"""The page at `/` in a real browser: an image dropped, pasted, chosen, taken; errors; a key."""

import base64
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from server.local_triton.supervisor import LocalTriton
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Gateway, running_gateway

KEY = "correct-horse-battery-staple"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Drops files made of `base64` onto the page, as a file manager would.
DROP = """([base64, name, type, copies]) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  for (let i = 0; i < copies; ++i) transfer.items.add(new File([bytes], name, {type}));
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
}"""
# Puts an image, a PNG in `base64`, on the clipboard, as any program would.
COPY = """async (base64) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const image = new Blob([bytes], {type: "image/png"});
  await navigator.clipboard.write([new ClipboardItem({"image/png": image})]);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs a browser: Debian's package `chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",  # containers run as root
                "--no-proxy-server",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def problems() -> list[str]:
    """What the browser's console complained about."""
    return []


@pytest.fixture
def page(browser: Browser, problems: list[str]) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    page.close()


def drop(page: Page, data: bytes, name: str, kind: str, copies: int = 1) -> None:
    page.evaluate(DROP, [base64.b64encode(data).decode(), name, kind, copies])


def test_an_image_is_dropped_and_its_labels_are_shown(
    gateway: Gateway, page: Page, problems: list[str]
) -> None:
    page.goto(gateway.url)
    image = photo(0)
    drop(page, image, "photo.jpg", "image/jpeg")
    items = page.locator("#labels li")
    expect(items).to_have_count(5)
    expect(page.get_by_alt_text("Your image")).to_be_visible()
    right = httpx.post(f"{gateway.url}/classify", content=image, trust_env=False).json()
    for at, prediction in enumerate(right["predictions"]):
        expect(items.nth(at)).to_contain_text(prediction["label"])
        expect(items.nth(at)).to_contain_text(f"{100 * prediction['probability']:.1f} %")
    expect(page.get_by_role("table")).to_contain_text("inference")
    expect(page.get_by_role("status")).to_contain_text(right["predictions"][0]["label"])

    # Another model, by the keyboard alone.
    page.get_by_label("Model").focus()
    page.keyboard.type("linear")
    expect(page.get_by_role("status")).to_contain_text("Answered by linear")

    page.get_by_label("Choose an image").set_input_files(
        {"name": "other.png", "mimeType": "image/png", "buffer": photo(1, kind="PNG")}
    )
    expect(page.get_by_role("status")).to_contain_text("Answered by linear")
    expect(items).to_have_count(5)
    assert problems == []


def test_an_image_is_pasted(gateway: Gateway, page: Page, problems: list[str]) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(gateway.url)
    page.evaluate(COPY, base64.b64encode(photo(0, kind="PNG")).decode())
    page.keyboard.press("Control+V")
    expect(page.get_by_alt_text("Your image")).to_be_visible()
    expect(page.locator("#labels li")).to_have_count(5)
    assert problems == []


def test_an_error_is_said_in_words_and_goes_with_the_next_image(
    gateway: Gateway, page: Page
) -> None:
    page.goto(gateway.url)
    drop(page, b"hello", "notes.txt", "text/plain")
    expect(page.get_by_role("alert")).to_contain_text("the bytes are text")
    expect(page.locator("#answer")).to_be_hidden()
    drop(page, photo(0), "photo.jpg", "image/jpeg")
    expect(page.locator("#labels li")).to_have_count(5)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_of_several_images_it_says_that_one_was_taken(gateway: Gateway, page: Page) -> None:
    page.goto(gateway.url)
    drop(page, photo(0), "photo.jpg", "image/jpeg", copies=2)
    expect(page.locator("#labels li")).to_have_count(5)
    expect(page.get_by_role("alert")).to_contain_text("Of 2 files only photo.jpg was taken")


def test_the_camera_takes_an_image(gateway: Gateway, page: Page, problems: list[str]) -> None:
    page.goto(gateway.url)
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("button", name="Take a photo").click()
    expect(page.locator("#labels li")).to_have_count(5)
    assert problems == []


def test_a_key_is_asked_for_and_kept(triton: LocalTriton, page: Page, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(f"browser {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    with running_gateway(
        tmp_path / "log",
        *("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL),
        *("--keys-file", str(keys)),
    ) as gateway:
        page.goto(gateway.url)
        expect(page.get_by_role("alert")).to_contain_text("needs an API key")
        field = page.get_by_label("API key")
        expect(field).to_be_focused()
        field.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not accepted")
        field.fill(KEY)
        page.keyboard.press("Enter")
        expect(field).to_be_hidden()
        for _ in range(2):
            drop(page, photo(0), "photo.jpg", "image/jpeg")
            expect(page.locator("#labels li")).to_have_count(5)
            page.reload()
        expect(field).to_be_hidden()


def test_the_page_fits_a_phone(gateway: Gateway, page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(gateway.url)
    drop(page, photo(0, 1200, 300), "wide.jpg", "image/jpeg")
    expect(page.locator("#labels li")).to_have_count(5)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_page_allows_itself_alone(gateway: Gateway) -> None:
    response = httpx.get(gateway.url, trust_env=False)
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in policy
    for part in ("src=", "@import", "url("):
        assert part not in response.text.replace("shown.src =", "")


def test_the_documentation_works_without_any_other_server(
    gateway: Gateway, page: Page, problems: list[str]
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{gateway.url}/docs")
    document = httpx.get(f"{gateway.url}/openapi.json", trust_env=False).json()
    operations = sum(len(path) for path in document["paths"].values())
    expect(page.locator(".opblock")).to_have_count(operations)
    classify = page.get_by_role("button", name="POST /classify Classify one image")
    expect(classify).to_be_visible()
    # A call made from it, whose answer is shown.
    models = page.locator("#operations-default-list_models_models_get")
    models.locator("button.opblock-summary-control").click()
    models.get_by_role("button", name="Try it out").click()
    models.get_by_role("button", name="Execute").click()
    expect(models.locator(".live-responses-table")).to_contain_text(DEFAULT_MODEL)
    assert problems == []
    assert {url.startswith(f"{gateway.url}/") or url.startswith("data:") for url in asked} == {True}
    files = {f"{gateway.url}/docs/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css")}
    assert files <= set(asked)
    policy = httpx.get(f"{gateway.url}/docs", trust_env=False).headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
