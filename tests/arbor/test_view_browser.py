"""The page in a real browser: `make test-view`. Skipped where there is no Chromium or no playwright."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arbor.view.page import write_page
from tests.arbor.pages import hostile, plain, searched, simulated, write
from tests.arbor.test_view import serving

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-view")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
GOLDEN = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "golden"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        found.close()


class Watched:
    """A page whose requests and complaints are kept."""

    def __init__(self, browser: Any, **settings: Any) -> None:
        self.page = browser.new_page(**{"viewport": {"width": 1280, "height": 720}, **settings})
        self.page.set_default_timeout(20_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path | str) -> Any:
        self.page.goto(path if isinstance(path, str) else path.as_uri())
        self.page.wait_for_selector(".node")
        return self.page


@pytest.fixture
def watched(browser: Any) -> Iterator[Watched]:
    found = Watched(browser)
    yield found
    assert not found.complaints
    assert all(url.startswith(("file:", "data:", "http://127.0.0.1:")) for url in found.requests)
    assert sum(url.startswith("file:") for url in found.requests) <= 1
    found.page.close()


def view(folder: Path, *files: list[dict[str, Any]]) -> Path:
    paths = [write(folder / f"{name}.jsonl", *records) for name, records in zip("ab", files, strict=False)]
    write_page(paths, folder / "view.html")
    return folder / "view.html"


def text(page: Any, selector: str) -> str:
    return str(page.text_content(selector))


def test_a_question_opens_with_its_picked_answer(watched: Watched, tmp_path: Path) -> None:
    page = watched.open(view(tmp_path, [simulated(), plain("Q2", "1", "2")]))
    assert page.locator(".row").count() == 2 and page.locator(".node").count() == 7
    assert "step 0.0.0" in text(page, ".body header") and "picked path" in text(page, ".body header")
    assert page.locator(".edge.picked").count() == 2
    assert page.locator(".node.right").count() == 1 and page.locator(".node.wrong").count() == 1
    assert page.locator(".node.failed").count() == 1
    page.click('.node[data-tag="0.0"]')
    assert "print(2+3)" in text(page, ".body .code") and text(page, ".body .observation pre") == "5"
    assert page.locator(".body .code .hljs-built_in").count() == 1


def test_mathematics_is_typeset_without_a_word_of_html(watched: Watched, tmp_path: Path) -> None:
    page = watched.open(view(tmp_path, [simulated()]))
    page.click('.node[data-tag="0"]')
    assert page.locator(".prose .katex").count() == 1
    page.evaluate("document.fonts.ready")
    assert page.evaluate("document.fonts.check('16px KaTeX_Main')")


def test_filters_narrow_the_list(watched: Watched, tmp_path: Path) -> None:
    records = [plain("Apples", "1", "1"), plain("Pears", "1", "2", tokens=500), plain("Plums", "1", None)]
    page = watched.open(view(tmp_path, records))
    for chip, shown in (("right", "Apples"), ("wrong", "Pears"), ("unanswered", "Plums")):
        page.click(f'.chip[data-kind="{chip}"]')
        assert page.locator(".row").count() == 1 and shown in text(page, ".rows")
        page.click(f'.chip[data-kind="{chip}"]')
    page.fill('input[type="search"]', "pear")
    assert page.locator(".row").count() == 1
    page.fill('input[type="search"]', "")
    page.click(".filters summary")
    page.fill('label:has-text("tokens") input', "100")
    assert page.locator(".row").count() == 1 and "Pears" in text(page, ".rows")
    page.fill('label:has-text("tokens") input', "")
    page.select_option('select[aria-label="reason"]', "too deep")
    assert page.locator(".row").count() == 1 and "Plums" in text(page, ".rows")
    page.select_option('select[aria-label="reason"]', "")
    page.fill('label:has-text("value error") input', "1.2")
    assert page.locator(".row").count() == 1 and "Pears" in text(page, ".rows")


def test_a_replay_grows_the_tree_as_the_search_did(watched: Watched, tmp_path: Path) -> None:
    page = watched.open(view(tmp_path, [simulated()]))
    assert text(page, ".told") == "simulation 3 of 3"
    counts = []
    for _ in range(3):
        page.keyboard.press("[")
        counts.append(page.locator(".node").count())
    assert counts == [6, 4, 1]
    assert "final statistics" not in text(page, ".told")  # its backups are repeated
    page.keyboard.press("]")
    labels = page.locator('.node[data-tag="0"]').get_attribute("aria-label")
    assert "3 visits" in labels and "estimate −0.23" in labels
    page.keyboard.press(" ")
    page.wait_for_selector('.told:has-text("simulation 3 of 3")')
    assert page.locator(".node").count() == 7


def test_the_keyboard_is_enough(watched: Watched, tmp_path: Path) -> None:
    page = watched.open(view(tmp_path, [simulated(), plain("Q2", "1", "2")]))
    page.keyboard.press("g")
    page.keyboard.press("ArrowLeft")
    assert "step 0.0" in text(page, ".body header")
    page.keyboard.press("Enter")
    assert page.locator(".node").count() == 5 and page.locator(".folded").count() == 1
    page.keyboard.press("p")
    assert page.locator(".node").count() == 7 and "step 0.0.0" in text(page, ".body header")
    for key, word in (("2", "answer 5"), ("3", "<question> What is"), ("4", "the answer is right"), ("5", "arbor/1")):
        page.keyboard.press(key)
        assert word in text(page, ".body")
    page.keyboard.press("j")
    page.wait_for_selector('.row[aria-selected="true"]:has-text("Q2")')
    page.keyboard.press("/")
    page.keyboard.type("what is")
    assert page.locator(".row").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    theme = "document.documentElement.dataset.theme"
    before = page.evaluate(theme)
    page.keyboard.press("t")
    assert page.evaluate(theme) != before


def test_two_searches_stand_side_by_side(watched: Watched, tmp_path: Path) -> None:
    first = [plain("Q1", "1", "1"), plain("Q2", "2", "2"), plain("Q3", "3", "0")]
    second = [plain("Q3", "3", "3"), plain("Q1", "1", "9"), plain("Q2", "2", "2")]
    page = watched.open(view(tmp_path, first, second))
    assert "of 3: A alone 1, B alone 1, p = 1.000" in text(page, ".test")
    assert page.locator(".pane").count() == 2
    page.click('.chip[data-kind="second"]')
    assert page.locator(".row").count() == 1 and "Q3" in text(page, ".rows")
    page.click(".row")
    page.wait_for_selector(".pane-title:has-text('= 0')")
    page.wait_for_selector(".pane-title:has-text('= 3')")


def test_hostile_texts_are_shown_and_run_nothing(watched: Watched, tmp_path: Path) -> None:
    page = watched.open(view(tmp_path, [hostile(), simulated()]))
    for tag in ("0", "0.0", "0.1", "0.2", "0.3", "0.4", "0.5"):
        page.click(f'.node[data-tag="{tag}"]')
        for key in "12345":
            page.keyboard.press(key)
            assert page.evaluate("window.pwned === undefined && {}.polluted === undefined")
            assert page.locator(".body :is(script, img, a, iframe, [onerror], [onload], [href])").count() == 0
        page.keyboard.press("1")
        if tag == "0.0":
            assert "</script><script>window.pwned=1</script><img src=x" in text(page, ".body .prose")
            assert page.locator(".body .prose .hidden-char", has_text="U+202E").count() == 1
        if tag == "0.1":
            assert "costs $5 and $7" in text(page, ".body .prose") and page.locator(".body .katex").count() >= 3
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".node.right").count() == 1  # "constructor" is an answer like any other


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_at_1280_by_720(browser: Any, tmp_path: Path, scheme: str) -> None:
    watched = Watched(browser, color_scheme=scheme)
    page = watched.open(view(tmp_path, [simulated()]))
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.evaluate("document.documentElement.scrollWidth <= 1280 && document.documentElement.scrollHeight <= 720")
    contrast = """(selector) => {
      const linear = (one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
      const light = (colour) => {
        const [red, green, blue] = colour.match(/[\\d.]+/g).slice(0, 3).map((one) => linear(one / 255));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
      };
      const [front, back] = [getComputedStyle(document.querySelector(selector)).color,
                             getComputedStyle(document.body).backgroundColor].map(light).sort((x, y) => y - x);
      return (front + 0.05) / (back + 0.05);
    }"""
    for selector in (".facts", ".told", ".sign.right", ".numbers dt", ".body .what"):
        assert page.evaluate(contrast, selector) >= 4.5, selector
    assert not watched.complaints
    page.close()


def test_a_page_follows_a_search_that_is_still_running(watched: Watched, tmp_path: Path) -> None:
    path = write(tmp_path / "trees.jsonl", plain("Q1", "1", "1"))
    with serving(path) as server:
        page = watched.open(server.url)
        with path.open("a") as file:
            file.write(json.dumps(plain("Q2", "2", "3")) + "\n")
        page.wait_for_selector('.row:has-text("Q2")')
        assert "50.0 % right" in text(page, ".score")
        page.click('.row:has-text("Q2")')
        page.wait_for_selector(".node.wrong")
        page.goto("about:blank")


def test_a_thousand_trees_of_two_hundred_nodes_stay_fluent(watched: Watched, tmp_path: Path) -> None:
    tree = {"0": searched(n=200)}
    for first in range(14):
        tree[f"0.{first}"] = searched("one " * 20, q=0.1 * first - 0.7, n=14)
        for second in range(13):
            tree[f"0.{first}.{second}"] = searched("two " * 30, q=0.1 * second - 0.6, final_answer="4")
    records = [{"question": f"Question {number}", "answer": "4", "react": tree} for number in range(1000)]
    page = watched.open(view(tmp_path, records))
    assert page.locator(".node").count() == 197
    took = page.evaluate(
        """async () => {
          const times = [];
          for (let i = 0; i < 20; i++) {
            const start = performance.now();
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
            const wanted = `q=${i + 1}&`;
            while (!location.hash.includes(wanted) && performance.now() - start < 5000)
              await new Promise((done) => setTimeout(done));
            times.push(performance.now() - start);
          }
          return times.sort((a, b) => a - b)[10];
        }"""
    )
    assert took < 500  # milliseconds for the next question, its tree drawn


def test_a_tree_of_thirty_thousand_nodes_begins_folded(watched: Watched, tmp_path: Path) -> None:
    tree = {"0": searched(n=30_000)}
    for first in range(30):
        tree[f"0.{first}"] = searched("a", n=1000)
        for second in range(1000):
            tree[f"0.{first}.{second}"] = searched("b", final_answer="4", q=first / 30)
    page = watched.open(view(tmp_path, [{"question": "Q", "answer": "4", "react": tree}]))
    picked = page.locator(".node.picked").count()
    assert picked == 3 and page.locator(".node").count() == 1031  # the root's children and those of the picked path
    page.click('.node[data-tag="0.3"]')
    page.keyboard.press("f")
    assert page.locator(".node").count() == 2031


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the published system's trees are not here")
@pytest.mark.parametrize("name", ["mcts_sampling_False", "mcts_sampling_True", "sbs_3_5"])
def test_files_of_the_published_system_open(watched: Watched, tmp_path: Path, name: str) -> None:
    path = tmp_path / "published.jsonl"
    path.write_bytes(gzip.decompress((GOLDEN / f"{name}.trees.jsonl.gz").read_bytes()))
    write_page([path], tmp_path / "view.html")
    page = watched.open(tmp_path / "view.html")
    for _ in range(page.locator(".row").count()):
        assert page.locator(".node").count() > 1
        page.keyboard.press("j")
    page.keyboard.press("3")
    assert "markup" in text(page, ".body .note")
