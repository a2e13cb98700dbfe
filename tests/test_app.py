"""The page without a browser: what the desk answers and refuses, what panels show, what the server lets in."""

import http.client
import json
import re
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid import cli
from pellucid.app import Busy, Desk, Limits, panels, server
from pellucid.app.answers import Asked, Chosen, answer
from pellucid.app.lessons import LESSONS
from pellucid.errors import InputError, MissingExtra

OURS = {
    "div", "section", "h3", "h4", "p", "span", "small", "b", "bdi", "i", "button", "details", "summary",
    "table", "caption", "tbody", "tr", "td", "th",
}  # fmt: skip
"""Elements that panels are made of."""
TEXT = "The ending is not funny."
HOSTILE = "<img src=x onerror=alert(1)> <script>alert(2)</script> ${alert(3)} {{4}} `5` \u202e\"' & fine"


@pytest.fixture(scope="module")
def desk(demo: pellucid.Model) -> Desk:
    return Desk({"demo": demo}, Limits(tokens=100))


class Seen(HTMLParser):
    """Elements and attributes of a panel, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_desk_answers_what_explain_answers(desk: Desk, demo: pellucid.Model) -> None:
    for target, spec in (("the predicted class", None), ("positive", 1), ("positive minus negative", (1, 0))):
        got, want = desk.explain("demo", TEXT, target=target), pellucid.explain(demo, TEXT, target=spec)
        np.testing.assert_array_equal(got.scores, want.scores)
        assert got.label == want.label
    assert desk.explain("demo", TEXT).origin["model"] == "demo", "a name, and no path of the server's"
    assert desk.explain("demo", TEXT) is desk.explain("demo", TEXT), "a question asked again costs nothing"


def test_attention_and_what_it_could_have_been(desk: Desk) -> None:
    seen = desk.attention("demo", TEXT, -1, None)
    np.testing.assert_allclose(seen.weights.sum(-1), 1, atol=1e-6)
    assert seen.layer == 1
    assert len(seen.tokens) == 8
    found, _ = desk.others("demo", TEXT, 1, 0)
    assert "This attention is unique" in panels.others(found, seen)
    long = desk.others("demo", LESSONS[-1].text, 1, LESSONS[-1].head)
    assert long[0].moved["witness"] < 1e-12 < 1e-3 < long[0].random_moved
    assert "This attention is not unique" in panels.others(*long)


def test_erasing_is_what_the_model_says_without(desk: Desk, demo: pellucid.Model) -> None:
    e = desk.erase("demo", TEXT, [4], "delete")
    np.testing.assert_allclose(e.after, demo.logits(demo.batch("The ending is funny."))[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(e.before, demo.logits(demo.batch(TEXT))[0].numpy(), atol=1e-5)
    assert e.moved() == pytest.approx(e.after[0] - e.before[0])
    assert "changes its mind" in panels.erase(e)
    back = desk.erase("demo", TEXT, [], "mask")
    np.testing.assert_array_equal(back.before, back.after)


def test_two_texts_are_explained_for_one_class(desk: Desk) -> None:
    a, b = (LESSONS[2].text, LESSONS[2].second)
    c = desk.compare("demo", a, b)
    assert [x.label for x in c.attributions] == ["positive", "positive"]
    assert c.attributions[1].prediction == "negative"
    shown = panels.compare(c)
    keys = re.findall(r'class="key">([^<]*)', shown)
    assert len(keys) == 2
    assert keys[0] == keys[1], "one colour scale"


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"text": "  "}, "There is no text yet"),
        ({"text": "a " * 200}, "200 tokens|202 tokens"),
        ({"text": "a" * 5000}, "5,000 characters"),
        ({"text": TEXT, "model": "demmo"}, "Did you mean 'demo'"),
        ({"text": TEXT, "methods": ["decompy"]}, "Did you mean 'decompx'"),
        ({"text": TEXT, "methods": ["greedy"]}, "leaves out"),
        ({"text": "a " * 80, "methods": ["lime"]}, "82 tokens; this page takes at most 64 by 'lime'"),
        ({"text": TEXT, "methods": []}, "Choose from one to 4 methods"),
        ({"text": TEXT, "tab": "compare"}, "no second text"),
        ({"text": TEXT, "tab": "erase", "gone": (0,)}, "Only words of this text"),
        ({"text": TEXT, "tab": "attention", "layer": 7}, "no layer=7"),
        ({"text": "\u200b"}, "holds no tokens of its own"),
    ],
)
def test_refusals_are_sentences(desk: Desk, question: dict[str, Any], said: str) -> None:
    asked = Asked(question.get("tab", "tokens"), question["text"], gone=question.get("gone", ()))
    chosen = Chosen.of(
        question.get("model", "demo"), question.get("methods", ["decompx"]), "the predicted class", "delete",
        question.get("layer", 0), -1, 0, 0,
    )  # fmt: skip
    shown = Seen(answer(desk, asked, chosen))
    assert ("p", {"class": "refusal", "role": "alert"}) in shown.elements
    assert re.search(said, shown.text), shown.text
    assert "Text 1 of 1" not in shown.text


def test_what_is_typed_stays_text(desk: Desk) -> None:
    """No element, attribute or template comes from a text, a second text, or a label."""
    hurt = pellucid.Model(**{**vars(desk.model("demo")), "labels": ("<b>neg", "po${s}")})
    theirs = Desk({"<i>{{m}}": hurt}, Limits(tokens=100))
    for tab in ("tokens", "attention", "others", "erase", "compare"):
        asked = Asked(tab, HOSTILE, HOSTILE, gone=(3,) if tab == "erase" else ())
        html = answer(theirs, asked, Chosen("<i>{{m}}", ("decompx", "attention")))
        assert "refusal" not in html, html
        seen = Seen(html)
        assert {tag for tag, _ in seen.elements} <= OURS
        assert not [a for _, a in seen.elements if any(k.startswith("on") or k in ("src", "href") for k in a)]
        assert not re.search(r"[${}`\u202e]", html)
        if tab != "compare":
            assert "<img src=x onerror=alert(1)>" in seen.text or tab == "others"
    refused = panels.refusal(HOSTILE)
    assert not re.search(r"<img|<script|\$\{|\{\{", refused)


def test_a_full_queue_answers_at_once(demo: pellucid.Model) -> None:
    desk = Desk({"demo": demo}, Limits(queue=2))
    inside, go = threading.Event(), threading.Event()

    def slow() -> None:
        with desk._turn("demo"):
            inside.set()
            go.wait(10)

    threads = [threading.Thread(target=slow), threading.Thread(target=lambda: desk.explain("demo", TEXT))]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()  # waits for the first
    while desk._free._value:
        pass
    with pytest.raises(Busy, match="2 questions are waiting already"):
        desk.explain("demo", TEXT)
    go.set()
    for thread in threads:
        thread.join(10)
    assert desk.explain("demo", TEXT).prediction == "negative"


def test_twenty_at_the_same_time_on_one_desk(desk: Desk, demo: pellucid.Model) -> None:
    """Gradient methods and erasures of different texts, from twenty threads: each gets its own numbers."""
    texts = [
        f"The {noun} is {word}."
        for noun in ("ending", "film", "story", "music")
        for word in ("good", "dull", "funny", "warm", "loud")
    ]
    want = [pellucid.explain(demo, t, "gradient_x_input").scores for t in texts]
    got: dict[int, np.ndarray] = {}

    def ask(i: int) -> None:
        desk.erase("demo", texts[i], [2], "mask")
        got[i] = desk.explain("demo", texts[i], "gradient_x_input").scores

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, scores in enumerate(want):
        np.testing.assert_array_equal(got[i], scores)


def test_examples_teach_what_they_say(desk: Desk) -> None:
    """What the notes tell of the demo model is so."""
    a = desk.explain("demo", LESSONS[0].text)
    assert a.tokens[int(np.abs(a.scores).argmax())].text == "not"
    assert desk.erase("demo", LESSONS[0].text, [4], "delete").after.argmax() == 1
    a = desk.explain("demo", LESSONS[1].text, target="positive")
    by = {t.text: float(s) for t, s in zip(a.tokens, a.scores, strict=True)}
    assert by["thrilling"] + by["deeply"] + by["moving"] == pytest.approx(-by["dull"], rel=0.2)
    c = desk.compare("demo", LESSONS[2].text, LESSONS[2].second)
    clever = [float(x.scores[[t.text for t in x.tokens].index("clever")]) for x in c.attributions]
    assert clever[0] > 2 * clever[1] > 0
    e = desk.erase("demo", LESSONS[3].text, [4], "delete")
    assert e.attribution.tokens[4].text == "not"
    assert e.moved() > 1 > 0.5 > abs(e.attribution.scores[4])
    a = desk.explain("demo", LESSONS[4].text, "attention")
    at = int(a.scores.argmax())
    assert a.tokens[at].text == "but"
    assert abs(desk.explain("demo", LESSONS[4].text).scores[at]) < 0.5
    assert len(desk.explain("demo", LESSONS[5].text)) == 53


def test_names_and_ports() -> None:
    assert server.names_of([str(pellucid.DEMO), "owner/name", str(pellucid.DEMO)]) == ["demo", "owner/name", "demo (2)"]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        with pytest.raises(InputError, match=r"Port \d+ on 127.0.0.1 cannot be used"):
            server.free_port("127.0.0.1", s.getsockname()[1])
    assert server.free_port("127.0.0.1", 0) > 0
    with pytest.raises(InputError, match="no host"):
        server.free_port("nowhere.invalid", 1234)
    for wrong in (0, -1, True, 2.5):
        with pytest.raises(InputError, match="at least 1"):
            Limits(queue=wrong)  # type: ignore[arg-type]


def test_without_the_extra_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtra, match="pip install"):
        server.check_gradio()
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    assert cli.status(["serve"]) == 2
    said = capsys.readouterr()
    assert said.err == 'pellucid: The page needs gradio: pip install "pellucid[app]".\n'
    assert not said.out


# The server


@pytest.fixture(scope="module")
def url(demo: pellucid.Model) -> Iterator[str]:
    pytest.importorskip("gradio", reason="needs the extra app: pip install gradio")
    running = server.start({"demo": demo}, port=0, limits=Limits(tokens=60), demo="demo")
    yield running.url
    running.close()


def test_it_listens_on_loopback_and_names_no_other_host(url: str) -> None:
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url) as r:
        page = r.read().decode()
    assert "fonts.googleapis" not in page
    loads = re.findall(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"(https?://[^\"]+)", page)
    assert not [u for u in loads if "127.0.0.1" not in u], loads
    with urllib.request.urlopen(f"{url}/config") as r:
        config = json.load(r)
    assert config["analytics_enabled"] is False


@pytest.mark.parametrize(("path", "length", "status"), [("upload", 1, 403), ("call/explain", 2 << 20, 413)])
def test_large_requests_and_files_are_refused(url: str, path: str, length: int, status: int) -> None:
    there = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    there.putrequest("POST", f"/gradio_api/{path}")
    there.putheader("content-length", str(length))
    there.endheaders()  # the answer comes before the body is sent
    answered = there.getresponse()
    assert answered.status == status
    assert answered.read().decode().endswith(".")
    there.close()


def asked_by_program(url: str, name: str, *data: Any) -> tuple[str, Any]:
    """The event and the data that the API sends."""
    body = json.dumps({"data": data}).encode()
    request = urllib.request.Request(f"{url}/gradio_api/call/{name}", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as r:
        event = json.load(r)["event_id"]
    with urllib.request.urlopen(f"{url}/gradio_api/call/{name}/{event}") as r:
        lines = r.read().decode().strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))


def test_programs_ask_too(url: str, demo: pellucid.Model) -> None:
    event, (record,) = asked_by_program(url, "explain", TEXT, "demo", "decompx", "negative")
    assert event == "complete"
    assert (
        pellucid.Attribution.from_dict(record).scores.tolist() == pellucid.explain(demo, TEXT, target=0).scores.tolist()
    )
    event, (logits,) = asked_by_program(url, "erase", TEXT, [4], "demo", "delete", "negative")
    assert event == "complete"
    assert logits["after"][1] > logits["after"][0]
    event, said = asked_by_program(url, "explain", "a " * 100, "demo", "decompx", "negative")
    assert event == "error"
    assert "this page reads at most 60" in json.dumps(said)


def test_the_space_is_ready() -> None:
    folder = Path(__file__).parents[1] / "examples" / "space"
    front = (folder / "README.md").read_text(encoding="utf-8").split("---")[1]
    assert {"sdk: gradio", "app_file: app.py"} <= set(front.splitlines())
    compile((folder / "app.py").read_text(encoding="utf-8"), "app.py", "exec")
    assert "pellucid[app]" in (folder / "requirements.txt").read_text(encoding="utf-8")
