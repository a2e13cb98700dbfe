"""The page in gradio: fields, tabs, and which event asks what. Imported only once gradio is known to be there."""

import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr

from pellucid.app import panels
from pellucid.app.answers import MOST_METHODS, Asked, Chosen, answer
from pellucid.app.desk import PREDICTED, Desk
from pellucid.app.lessons import LESSONS, Lesson, Tab
from pellucid.app.style import CHOOSE, TOGGLE
from pellucid.errors import PellucidError

TITLE = "Pellucid: which words made the decision?"
TABS: dict[Tab, str] = {
    "tokens": "Which words",
    "attention": "Attention",
    "others": "What it could have been",
    "erase": "Erase a word",
    "compare": "Compare two texts",
}
_HEAD = (
    '<div class="pell"><h1>Which words made the decision?</h1><p>Type a text. The model decides, and Pellucid takes '
    "its decision apart, word by word.</p></div>"
)
_FOOT = (
    '<div class="pell"><p>Scores tell what this model computed, not whether it is right. Your text goes to this server '
    "and nowhere else, and is not stored.</p></div>"
)
_QUIET: Any = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "minimal"}


def known(made_by: Callable[..., Any], **settings: Any) -> dict[str, Any]:
    """The settings that this gradio knows: 6 has grown several since its first release, all of them looks."""
    names = inspect.signature(made_by).parameters
    return {name: value for name, value in settings.items() if name in names}


class Page:
    """The page of one desk: `blocks` is what gradio serves. demo: the name of the bundled model, if it is there."""

    def __init__(self, desk: Desk, demo: str | None) -> None:
        self.desk, self.demo, first = desk, demo, desk.names[0]
        with gr.Blocks(title=TITLE, analytics_enabled=False) as self.blocks:
            self.asked = gr.State(Asked(text=LESSONS[0].text))
            gr.HTML(_HEAD, apply_default_css=False, js_on_load=None)
            self._questions(first)
            self._tabs(first)
            gr.HTML(_FOOT, apply_default_css=False, js_on_load=None)
            self.chosen = [
                self.model, self.methods, self.target, self.operator,
                self.layer, self.head, self.other_layer, self.other_head,
            ]  # fmt: skip
            self.answers = [self.asked, self.note, *self.panels.values()]
            self._events()
            self._api()

    def _questions(self, first: str) -> None:
        """The text, what is asked about it, and examples."""
        self.text = gr.Textbox(LESSONS[0].text, label="Your text", lines=2, max_lines=8, elem_id="text")
        fields = self._choices(first)
        with gr.Row():
            self.model = gr.Dropdown(self.desk.names, value=first, label="Model", elem_id="model", min_width=200)
            self.methods = gr.Dropdown(
                **fields["methods"], multiselect=True, max_choices=MOST_METHODS, label=f"Methods, up to {MOST_METHODS}",
                elem_id="methods", min_width=200,
            )  # fmt: skip
            self.target = gr.Dropdown(**fields["target"], label="What is explained", elem_id="target", min_width=200)
        self.go = gr.Button("Explain", variant="primary", elem_id="explain")
        gr.HTML('<div class="pell">Or begin with an example:</div>', apply_default_css=False, js_on_load=None)
        with gr.Row(elem_id="lessons"):
            self.lessons = [gr.Button(one.title, size="sm", min_width=100) for one in LESSONS]
        self.note = gr.HTML(
            self._note(LESSONS[0].text, first), apply_default_css=False, js_on_load=None, elem_id="note"
        )

    def _tabs(self, first: str) -> None:
        """One panel in each tab, with the fields that matter there alone."""
        fields, self.panels, self.tabs = self._choices(first), {}, {}
        with gr.Tabs(**known(gr.Tabs, selected="tokens", overflow_behavior="wrap")) as self.switch:
            for name, title in TABS.items():
                with gr.Tab(title, id=name) as self.tabs[name]:
                    if name == "attention":
                        with gr.Row():
                            self.layer = gr.Dropdown(**fields["layer"], label="Layer", min_width=120)
                            self.head = gr.Dropdown(**fields["head"], label="Head", min_width=120)
                    if name == "others":
                        with gr.Row():
                            self.other_layer = gr.Dropdown(**fields["other_layer"], label="Layer", min_width=120)
                            self.other_head = gr.Dropdown(**fields["other_head"], label="Head", min_width=120)
                    if name == "erase":
                        self.operator = gr.Dropdown(**fields["operator"], label="How words are erased")
                    if name == "compare":
                        self.second = gr.Textbox(LESSONS[2].second, label="Second text", lines=2, elem_id="second")
                    script = {"erase": TOGGLE, "attention": CHOOSE, "others": CHOOSE}.get(name)
                    self.panels[name] = gr.HTML(
                        apply_default_css=False, js_on_load=script, elem_id=f"panel-{name}", elem_classes=[name],
                        min_height=120,
                    )  # fmt: skip

    def _choices(self, model: str) -> dict[str, dict[str, Any]]:
        """What the fields offer for one model, and what stands in them at first."""
        heads, methods, operators = self.desk.heads(model), self.desk.methods(model), self.desk.operators(model)
        layers = [(f"layer {i + 1}", i) for i in range(len(heads))]
        of_layer = [(f"head {i + 1}", i) for i in range(max(heads, default=0))]
        last = len(heads) - 1 if heads else None
        return {
            "methods": {"choices": methods, "value": ["decompx" if "decompx" in methods else methods[0]]},
            "target": {"choices": list(self.desk.targets(model)), "value": PREDICTED},
            "operator": {"choices": operators, "value": operators[0]},
            "layer": {"choices": layers, "value": last},
            "head": {"choices": [("all (mean)", -1), *of_layer], "value": -1},
            "other_layer": {"choices": layers, "value": last},
            "other_head": {"choices": of_layer, "value": 0 if of_layer else None},
        }

    def _note(self, text: str, model: str) -> str:
        """Where to look in an example's text, and what the demo model does there if it answers; "" for other texts."""
        lesson = next((one for one in LESSONS if one.text == text), None)
        return "" if lesson is None else panels.note(lesson.look, *([lesson.demo] if model == self.demo else []))

    # What events ask

    def _answered(self, asked: Asked, values: tuple[Any, ...]) -> list[Any]:
        chosen = Chosen.of(*values)
        shown, note = answer(self.desk, asked, chosen), self._note(asked.text, chosen.model)
        return [asked, note, *(shown if name == asked.tab else gr.skip() for name in self.panels)]

    def _ask(self, asked: Asked, text: str, second: str, *values: Any) -> list[Any]:
        """A field or the button: what is erased stays so while the text does."""
        return self._answered(asked.about(text, second), values)

    def _ask_new(self, asked: Asked, text: str, second: str, *values: Any) -> list[Any]:
        return self._answered(asked.about(text, second, model_changed=True), values)

    def _open(self, name: Tab) -> Callable[..., list[Any]]:
        """A tab is opened."""

        def opened(asked: Asked, text: str, second: str, *values: Any) -> list[Any]:
            about = asked.about(text, second)
            return self._answered(Asked(name, about.text, about.second, about.gone, about.row), values)

        return opened

    def _click(self, name: Tab) -> Callable[..., list[Any]]:
        """A word of a panel is chosen: of the text that the panel shows, whatever stands in the field by now."""

        def clicked(event: gr.EventData, asked: Asked, *values: Any) -> list[Any]:
            places = tuple(int(i) for i in event._data["places"])
            gone, row = (places, asked.row) if name == "erase" else (asked.gone, places[0])
            return self._answered(Asked(name, asked.text, asked.second, gone, row), values)

        return clicked

    def _learn(self, lesson: Lesson) -> Callable[..., list[Any]]:
        """An example is chosen: its texts, its methods, its tab."""

        def learnt(asked: Asked, model: str) -> list[Any]:
            able = self.desk.methods(model)
            methods = [m for m in lesson.methods if m in able] or able[:1]
            second = lesson.second or gr.skip()
            new = Asked(lesson.tab, "", asked.second)
            head = lesson.head if lesson.head < max(self.desk.heads(model), default=0) else gr.skip()
            return [new, lesson.text, second, methods, gr.Tabs(selected=lesson.tab), head]

        return learnt

    def _fit(self, model: str) -> list[Any]:
        """Another model is chosen: its methods, targets, layers and heads."""
        fields = self._choices(model)
        order = ("methods", "target", "operator", "layer", "head", "other_layer", "other_head")
        return [gr.update(**fields[name]) for name in order]

    def _events(self) -> None:
        texts = [self.asked, self.text, self.second, *self.chosen]
        fields = [f.input for f in (self.methods, self.target, self.operator, self.layer, self.head)]
        fields += [self.other_layer.input, self.other_head.input, self.text.submit, self.second.submit, self.go.click]
        gr.on(fields, self._ask, texts, self.answers, trigger_mode="always_last", **_QUIET)
        self.blocks.load(self._ask, texts, self.answers, **_QUIET)
        self.model.input(self._fit, self.model, self.chosen[1:], **_QUIET).then(
            self._ask_new, texts, self.answers, **_QUIET
        )
        for name, tab in self.tabs.items():
            tab.select(self._open(name), texts, self.answers, **_QUIET)
        for name in ("attention", "others", "erase"):
            chosen = [self.asked, *self.chosen]
            self.panels[name].click(self._click(name), chosen, self.answers, trigger_mode="always_last", **_QUIET)
        for lesson, button in zip(LESSONS, self.lessons, strict=True):
            set_up = [self.asked, self.text, self.second, self.methods, self.switch, self.other_head]
            button.click(self._learn(lesson), [self.asked, self.model], set_up, **_QUIET).then(
                self._ask, texts, self.answers, **_QUIET
            )

    def _api(self) -> None:
        """For programs: the same answers as numbers."""
        desk, first = self.desk, self.desk.names[0]

        def explain(text: str, model: str = first, method: str = "decompx", target: str = PREDICTED) -> dict[str, Any]:
            """Which tokens made the decision: what Attribution.to_dict() holds."""
            return _told(lambda: desk.explain(model, text, method, target).to_dict())

        def erase(
            text: str, gone: list[int], model: str = first, operator: str = "delete", target: str = PREDICTED
        ) -> dict[str, Any]:
            """Logits of the text, and without the tokens at these places."""

            def made() -> dict[str, Any]:
                e = desk.erase(model, text, gone, operator, target=target)
                return {"labels": list(e.attribution.labels), "before": e.before.tolist(), "after": e.after.tolist()}

            return _told(made)

        gr.api(explain, api_name="explain", concurrency_limit=None)
        gr.api(erase, api_name="erase", concurrency_limit=None)


def _told(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """An answer for a program, or the refusal's sentence as its error."""
    try:
        return make()
    except PellucidError as e:
        raise gr.Error(str(e), print_exception=False) from e
