"""The page in a real browser: Chromium, driven by playwright."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow as pa
import pytest

from amer.corpus import write_store
from amer.search import ExactIndex, Searcher
from amer.service import Settings, create_app
from tests.conftest import DIM
from tests.service.conftest import ENCODER, running

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `dev`")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra `dev`")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]
QUESTION = "sort a list, and plot it"
EXAMPLES = ["what is a bank?", "<b>bold</b> & <script>window.hurt = 1</script>"]
HOSTILE = "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>" + "unbroken" * 40
OPTIONS = Settings(max_question_characters=200)
Open = Callable[..., "playwright.Page"]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running_playwright:
        browser = running_playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def hostile_searcher(mini_searcher, tmp_path_factory) -> Searcher:
    """Every document brings markup along, in each of its fields."""
    vectors = np.random.default_rng(0).normal(size=(40, DIM)).astype("float32")
    ids = [f"{row} {HOSTILE}" for row in range(40)]
    documents = pa.table({"id": ids, "title": ids, "text": ids, "kind": ids, "year": range(40)})
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    store = write_store(tmp_path_factory.mktemp("hostile") / "store", documents, unit, ENCODER, "float32")
    return Searcher(mini_searcher.model, ExactIndex(store))


@pytest.fixture(scope="module")
def address(hostile_searcher) -> Iterator[str]:
    with running(create_app(hostile_searcher, OPTIONS, examples=EXAMPLES)) as address:
        yield address


@pytest.fixture(scope="module")
def locked_address(hostile_searcher) -> Iterator[str]:
    with running(create_app(hostile_searcher, OPTIONS, api_key="secret")) as address:
        yield address


@pytest.fixture
def open_page(browser) -> Iterator[Open]:
    """Opens an address in a window of its own; what the page logs or asks of others fails the test."""
    contexts, faults = [], []

    def open_page(address: str, after: str = "", width: int = 1280, **options) -> playwright.Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if "Security" in message.text else None)
        page.on("request", lambda request: None if request.url.startswith(address) else faults.append(request.url))
        page.goto(f"{address}/{after}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def ask(page, question: str = QUESTION) -> None:
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")
    page.wait_for_selector(".hit")


def said(page) -> dict[str, list[str]]:
    """What the address says after #."""
    return parse_qs(urlsplit(page.url).fragment)


def question_shown(page) -> str:
    """The tinted question without the numbers of its query vectors."""
    return page.evaluate("""() => {
        const shown = document.querySelector(".asked").cloneNode(true);
        shown.querySelectorAll("sup").forEach((number) => number.remove());
        return shown.textContent;
    }""")


def section(page, heading: str):
    return page.locator("section").filter(has=page.get_by_role("heading", name=heading, exact=True))


def hits_of_amer(page, count: int) -> None:
    """Wait until the fused list has so many."""
    playwright.expect(section(page, "AMER").locator(".hit")).to_have_count(count, timeout=20_000)


def test_a_question_shows_its_words_its_lists_and_a_link_to_share(open_page, address, hostile_searcher):
    page = open_page(address)
    ask(page)
    assert question_shown(page) == QUESTION
    parts = [part for part in hostile_searcher.parts(QUESTION) if part.spans]
    marks = page.locator(".asked mark")
    assert marks.count() == sum(len(part.spans) for part in parts) > 0
    expected = [hit.title for hit in hostile_searcher.search(QUESTION, k=10)[0]]
    assert section(page, "AMER").locator(".title").all_inner_texts() == expected
    assert section(page, "The encoder alone").locator(".hit").count() == 10
    for number in (1, 2, 3):
        assert section(page, f"Query vector {number}").locator(".hit").count() == 10
    assert page.get_by_role("status").inner_text().startswith("10 documents, 3 query vectors")
    assert said(page) == {"q": [QUESTION]} and page.title().startswith(QUESTION)


def test_m_and_k_change_what_is_searched_and_the_link_opens_the_same(open_page, address):
    page = open_page(address)
    ask(page)
    page.get_by_text("Options").click()
    page.get_by_label("Query vectors (m)").press("ArrowLeft")
    page.get_by_role("heading", name="Query vector 3").wait_for(state="detached")
    page.get_by_label("Documents a list (k)").press("ArrowLeft")
    hits_of_amer(page, 9)
    page.get_by_label("Fusion").select_option("max_score")
    page.wait_for_url(re.compile("fusion=max_score"))
    page.get_by_label("Only documents with").fill("year < 5")
    page.get_by_label("Only documents with").press("Enter")
    hits_of_amer(page, 5)
    assert said(page) == {"q": [QUESTION], "m": ["2"], "k": ["9"], "fusion": ["max_score"], "filter": ["year < 5"]}
    found = section(page, "AMER").locator(".title").all_inner_texts()
    shared = open_page(address, page.url.removeprefix(f"{address}/"))
    shared.wait_for_selector(".hit")
    assert section(shared, "AMER").locator(".title").all_inner_texts() == found
    assert shared.get_by_label("Only documents with").input_value() == "year < 5"
    page.go_back()
    hits_of_amer(page, 9)


def test_markup_in_documents_questions_and_examples_is_text(open_page, address):
    page = open_page(address)
    page.get_by_role("button", name=EXAMPLES[1]).click()
    page.wait_for_selector(".hit")
    title = section(page, "AMER").locator(".title").first
    assert HOSTILE in title.inner_text() and question_shown(page) == EXAMPLES[1]
    title.click()
    assert HOSTILE in section(page, "AMER").locator(".more").first.inner_text()
    page.locator(".map svg").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.hurt") is None
    assert page.locator("#results script, #results img, #results b:not(.caption b)").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_of_320_pixels_scrolls_in_one_direction(open_page, address, scheme):
    page = open_page(address, width=320, color_scheme=scheme)
    ask(page)
    page.get_by_text("Options").click()
    section(page, "AMER").locator(".title").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.get_by_role("button", name="Search").bounding_box()["width"] > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(open_page, address, locked_address, scheme):
    page = open_page(address, color_scheme=scheme)
    page.get_by_text("Each part of a question").wait_for()
    check_access(page)
    ask(page)
    page.get_by_text("Options").click()
    section(page, "AMER").locator(".title").first.click()
    check_access(page)
    page.get_by_label("Only documents with").fill("nothing == 1")
    page.get_by_label("Only documents with").press("Enter")
    page.get_by_role("alert").get_by_text("there is no field").wait_for()
    check_access(page)
    locked = open_page(locked_address, color_scheme=scheme)
    locked.get_by_label("API key").wait_for()
    check_access(locked)


def check_access(page) -> None:
    found = axe.Axe().run(page).response["violations"]
    serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    assert serious == [], [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in serious]


def test_the_dark_scheme_is_dark(open_page, address):
    paper = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert min(open_page(address, color_scheme="light").evaluate(paper)) > 230
    assert max(open_page(address, color_scheme="dark").evaluate(paper)) < 40


def test_it_can_be_used_with_the_keyboard_alone(open_page, address):
    page = open_page(address)
    ask(page)
    page.locator("h1").click()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "question"
    title = section(page, "AMER").locator(".title").first
    title.focus()
    page.keyboard.press("Enter")
    assert title.get_attribute("aria-expanded") == "true"
    assert "Found by query vector" in section(page, "AMER").locator(".more").first.inner_text()
    page.locator(".map svg").first.focus()
    captions = set()
    for _ in range(14):  # 10 hits, 3 query vectors, the encoder's
        page.keyboard.press("ArrowRight")
        captions.add(page.locator(".caption").inner_text())
    assert any("Query vector 2" in caption for caption in captions)
    assert any("The encoder alone" in caption for caption in captions) and len(captions) == 14
    page.keyboard.press("Escape")
    assert page.locator(".caption").inner_text() == ""


def test_the_empty_page_says_what_to_do_and_offers_examples(open_page, address):
    page = open_page(address)
    page.get_by_text("Each part of a question gets a query vector of its own").wait_for()
    assert page.locator("#examples button").all_inner_texts() == EXAMPLES
    assert page.evaluate("document.activeElement.id") == "question"
    page.get_by_role("button", name=EXAMPLES[0]).click()
    page.wait_for_selector(".hit")
    assert said(page) == {"q": [EXAMPLES[0]]}
    page.goto(f"{address}/#")
    page.wait_for_selector(".hit", state="detached")


def test_a_question_has_a_limit_and_the_page_says_how_much_is_left(open_page, address):
    page = open_page(address)
    page.wait_for_selector("#examples button")
    page.get_by_label("Question").press_sequentially("a" * 10)
    assert page.locator("#limit").is_hidden()
    page.get_by_label("Question").fill("a" * 195)
    assert page.locator("#limit").inner_text() == "5 more characters fit."
    page.get_by_label("Question").press_sequentially("b" * 9)
    assert len(page.get_by_label("Question").input_value()) == 200
    assert page.locator("#limit").inner_text() == "No more characters fit."


def test_what_went_wrong_is_said_and_can_be_tried_again(open_page, address):
    page = open_page(address)
    page.wait_for_selector("#examples button")
    full = '{"detail": "5 questions are waiting: try again later"}'
    page.route("**/explore", lambda route: route.fulfill(status=503, content_type="application/json", body=full))
    page.get_by_label("Question").fill(QUESTION)
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    alert.get_by_role("heading", name="The service is busy").wait_for()
    assert "5 questions are waiting" in alert.inner_text()
    page.unroute("**/explore")
    page.route("**/explore", lambda route: route.abort())
    alert.get_by_role("button", name="Try again").click()
    alert.get_by_text("The service cannot be reached").wait_for()
    page.unroute("**/explore")
    alert.get_by_role("button", name="Try again").click()
    page.wait_for_selector(".hit")
    assert alert.is_hidden()


def test_a_slow_answer_is_announced_and_a_newer_question_wins(open_page, address):
    page = open_page(address)
    page.wait_for_selector("#examples button")
    waiting = []
    # The first request is never answered. Without the route, the browser would let it go on.
    page.route("**/explore", lambda route: route.continue_() if waiting else waiting.append(route))
    page.get_by_label("Question").fill("an old question")
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("Still searching").wait_for()
    ask(page, "a new question")
    assert question_shown(page) == "a new question"
    assert page.title().startswith("a new question") and len(waiting) == 1


def test_a_newer_question_wins_while_an_older_answer_is_read(open_page, address):
    page = open_page(address)
    page.wait_for_selector("#examples button")
    page.evaluate("""() => {
        const fetch = window.fetch;
        window.fetch = async (path, options) => {
            window.fetch = fetch;
            const { signal } = options;
            const aborted = (_, refuse) => signal.addEventListener("abort", () => refuse(signal.reason));
            return { ok: true, json: () => new Promise(aborted) };
        };
    }""")
    page.get_by_label("Question").fill("an old question")
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("Searching").wait_for()
    ask(page, "a new question")
    assert question_shown(page) == "a new question" and page.get_by_role("alert").is_hidden()


def test_a_filter_that_leaves_nothing_is_no_error(open_page, address):
    page = open_page(address, "#q=bank&filter=year+%3E+99")
    page.get_by_text("No document was found").wait_for()
    assert page.get_by_role("alert").is_hidden()


def test_the_key_is_asked_for_and_stays_in_the_tab(open_page, locked_address):
    page = open_page(locked_address, f"#q={QUESTION.replace(' ', '+')}")
    field = page.get_by_label("API key")
    field.wait_for()
    assert page.get_by_label("Question").is_hidden()
    field.fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("The key is wrong").wait_for()
    field.fill("secret")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hit")
    assert "secret" not in page.url and page.evaluate("localStorage.length + document.cookie.length") == 0
    page.reload()
    page.wait_for_selector(".hit")  # the tab remembers it
    assert open_page(locked_address).get_by_label("API key").is_visible()
