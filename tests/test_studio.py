"""The studio and what it stands on: text heard while it is written, debates that stop, transcripts."""

import base64
import json
import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from bs4 import BeautifulSoup

from maft_lib.backends import BackendError, Completion, Request, Sampling, cpu_decoding, generate, hub
from maft_lib.backends.openai import OpenAIBackend
from maft_lib.backends.opening import CachedBackend, open_backend
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.config import Config
from maft_lib.debate import Debate, debate_rounds, run_debates
from maft_lib.lab import studio as studio_module
from maft_lib.lab.studio import ADVICE, DebateStudio
from maft_lib.prompts import load_prompts
from maft_lib.run import run_study
from maft_lib.society import base_society, save_society
from maft_lib.store import Store
from maft_lib.tasks import load_problems
from tests.openai_server import BASE, Handler, Server
from tests.scripted import ScriptedBackend
from tests.test_explorer import unpacked

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)></div>\n```\n# not a title\n````|`\\boxed{3}"
)


class Enough(Exception):
    """What a listener raises."""


class Typist:
    """A backend that can be listened to: writes `text` word by word, `pause` seconds each."""

    name = "typist"
    streams_text = True

    def __init__(self, text="I think it is \\boxed{7}", pause=0.0):
        self.text, self.pause = text, pause

    def describe(self, request):
        return [self.name, list(request.messages), request.seed]

    def stream(self, requests, on_text=None):
        words = self.text.split()
        for index, _ in enumerate(requests):
            for n in range(1, len(words) + 1):
                time.sleep(self.pause)
                if on_text:
                    on_text(index, " ".join(words[:n]))
            yield index, Completion(self.text, 3, len(words), "stop")


def requests(model, num=6, temperature=1.0, max_tokens=80):
    asked = []
    for task in ("arithmetic", "mini_gsm", "mini_mmlu"):
        for problem in load_problems(task, "eval", num // 3, max_operand=9):
            message = load_prompts().generation(problem)
            drawn = Sampling(temperature, 1.0, max_tokens)
            asked.append(Request(model, (message,), drawn, seed=7 * len(asked)))
    return asked


def listen(backend, asked):
    """All that is heard of requests, their whole texts last, and their completions."""
    heard = []
    completions = generate(
        backend,
        asked,
        lambda index, text: heard.append((index, text)),
        lambda index, completion: heard.append((index, completion.text)),
    )
    return heard, completions


def check_growth(heard, completions, steps=5):
    """Each text grew, from the first token to what the completion says."""
    for index, completion in enumerate(completions):
        texts = [text for i, text in heard if i == index]
        assert all(after.startswith(before) for before, after in zip(texts, texts[1:]))
        assert len(set(texts)) > steps and texts[-1] == completion.text


# Text that is heard while it is written


@pytest.fixture(scope="module")
def engine():
    return TransformersBackend(Config(device="cpu", num_workers=1))


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_who_listens_gets_the_same_responses(engine, model, temperature):
    asked = requests(model, 6, temperature)
    asked += [replace(asked[0], sampling=Sampling(temperature, 1.0, 9))]  # a batch of its own
    heard, completions = listen(engine, asked)
    assert completions == generate(engine, asked)
    check_growth(heard, completions)
    assert all(completion.seconds > 0 for completion in completions)


def stop_after(num):
    """A listener that has enough after `num` texts; `.count` says how many it was told."""

    def hear(index, text):
        hear.count += 1
        if hear.count >= num:
            raise Enough

    hear.count = 0
    return hear


def test_a_listener_can_stop_the_decoding_at_any_step(engine, model):
    hear = stop_after(10)
    with pytest.raises(Enough):
        generate(engine, requests(model, 3), hear)
    assert hear.count == 10


def test_only_finished_completions_are_stored(engine, model, tmp_path):
    store = Store(tmp_path)
    cached = CachedBackend(engine, store)
    asked = requests(model, 6)
    with pytest.raises(Enough):
        generate(cached, asked, stop_after(30))
    assert len(store) == 0

    def until_one_has_ended(index, completion):
        raise Enough

    with pytest.raises(Enough):
        generate(cached, asked, lambda index, text: None, until_one_has_ended)
    assert len(store) == 1
    assert generate(cached, asked) == generate(engine, asked)


def test_what_is_stored_is_heard_whole_and_equal_requests_are_all_heard(tmp_path):
    cached = CachedBackend(Typist(), Store(tmp_path))
    asked = [Request("m", ({"role": "user", "content": "?"},), Sampling(), 0)] * 2
    heard, _ = listen(cached, asked)
    first, second = ([text for i, text in heard if i == index] for index in (0, 1))
    assert first == second and first[0] == "I" and len(set(first)) == 5
    heard, _ = listen(cached, asked)
    assert heard == [(0, Typist().text), (1, Typist().text)] and cached.num_calls == 1


def test_a_backend_that_cannot_stream_is_heard_when_it_has_finished():
    asked = [Request("m", ({"role": "user", "content": "?"},), Sampling(), seed) for seed in (1, 2)]
    heard, _ = listen(ScriptedBackend(["one", "two"]), asked)
    assert heard == [(0, "one"), (1, "two")]


def test_half_a_character_is_not_shown(engine, model, monkeypatch):
    tokenizer, asked = hub.load_tokenizer(model), requests(model, 3)[:1]
    generate(engine, asked)  # the kernel has been compiled
    ids = tokenizer("a\u20acb", add_special_tokens=False)["input_ids"]
    drawn = iter([*ids, tokenizer.eos_token_id])
    monkeypatch.setattr(cpu_decoding, "draw", lambda *_: np.array([next(drawn)]))
    shown = [text for _, text in listen(engine, asked)[0]]
    assert shown[-1] == "a\u20acb" and not any("\ufffd" in text for text in shown)


# A server that answers in chunks


class ChunkHandler(Handler):
    """Sends a chat completion in chunks where that is asked for; knows faults of streams."""

    def _route(self, method, path, body):
        self.asked = json.loads(body) if path == "/chat/completions" else {}
        return super()._route(method, path, body)

    def fault(self, kind):
        self.kind = kind  # those of streams come later, with the answer
        return super().fault(kind)

    def send(self, status, answer, headers=None):
        kind, self.kind = getattr(self, "kind", None), None
        if status != 200 or not getattr(self, "asked", {}).get("stream") or kind == "no_stream":
            super().send(status, answer, headers)
            return
        assert self.asked["stream_options"] == {"include_usage": True}
        choice = answer["choices"][0]
        words = re.findall(r"\s*\S+", choice["message"]["content"])
        deltas = [{"content": word} for word in words]
        lines = [
            self.line({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            for delta in deltas
        ]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]}
        lines += [
            self.line(end),
            self.line({"choices": [], "usage": answer["usage"]}),
            "data: [DONE]\n\n",
        ]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for number, line in enumerate(lines):
            if number == 3 and kind == "early_end":
                return
            if number == 3 and kind == "error_event":
                line = 'data: {"error": {"message": "out of order"}}\n\n'
            if number == 3 and kind == "nonsense":
                line = 'data: {"choices": [{"delta": {"content": 7}}]}\n\n'
            if number == 3 and kind == "silence":
                time.sleep(20)
            time.sleep(0.03)
            self.wfile.write(line.encode())
            self.wfile.flush()

    def line(self, chunk):
        head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        return f"data: {json.dumps({**head, **chunk})}\n\n"


@pytest.fixture
def chunks(model, tmp_path, monkeypatch):
    """A server that answers in chunks; the environment names it."""
    pytest.importorskip("openai")
    server = Server(model, tmp_path / "server", "sk-key-for-chunks")
    server.http.RequestHandlerClass = type("Bound", (ChunkHandler,), {"state": server})
    with server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-key-for-chunks")
        yield server


def test_a_server_that_streams_says_the_same(chunks):
    backend, asked = OpenAIBackend(Config()), requests(BASE, 3)
    heard, completions = listen(backend, asked)
    assert completions == generate(backend, asked)
    check_growth(heard, completions, steps=2)
    assert all(c.num_prompt_tokens and c.num_completion_tokens for c in completions)
    assert [bool(chat.get("stream")) for chat in chunks.chats] == [True] * 3 + [False] * 3


def test_a_stream_that_always_fails_is_said_in_a_sentence(chunks):
    chunks.faults["/chat/completions"] = ["after_error_event"] * 2
    backend = OpenAIBackend(Config(max_retries=1))
    with pytest.raises(BackendError, match="out of order") as caught:
        generate(backend, requests(BASE, 3)[:1], lambda index, text: None)
    assert "\n" not in str(caught.value) and "sk-key" not in str(caught.value)


def test_a_silent_server_can_be_left(chunks):
    chunks.faults["/chat/completions"] = ["after_silence"] * 3
    began = time.monotonic()

    def hear(index, text):
        if time.monotonic() - began > 1:
            raise Enough

    with pytest.raises(Enough):
        generate(OpenAIBackend(Config()), requests(BASE, 3), hear)
    assert time.monotonic() - began < 5


# Rounds that are watched


def test_rounds_that_are_watched_are_the_same_debate(config):
    problems = load_problems("arithmetic", "eval", 2, max_operand=9)
    setup = (base_society("base", 3), problems, config.replace(num_rounds=3))
    told = []
    rounds = list(debate_rounds(*setup, Typist(), on_turn=lambda i, n, turn: told.append((i, n, turn))))
    assert rounds[-1] == run_debates(*setup, Typist())
    assert [[len(d.turns[0]) for d in debates] for debates in rounds] == [[1, 1], [2, 2], [3, 3]]
    assert [debates[0].vote for debates in rounds] == [None, None, "7"]
    assert {(i, n) for i, n, _ in told} == {(i, n) for i in range(2) for n in range(3)}
    first = [turn for i, n, turn in told if (i, n) == (1, 2)]
    final = rounds[-1][1].turns[2]
    drafts = [(turn.summary, turn.response) for turn in first]
    assert drafts[0] == (None, "I")
    assert (final[1].summary, "") in drafts and (final[1].summary, "I think") in drafts
    assert {turn.asked for turn in first} == {"", *(turn.asked for turn in final)}
    assert {turn.answer for turn in first if turn.response != final[0].response} == {None}
    assert final[0] in first and final[1] in first  # whole, with their answers


# The widget


def studio(config, backend=None):
    made = DebateStudio(config, backend)
    made._question.value, made._task.value = "What is 3+4?", "arithmetic"
    return made


def finish(studio):
    studio._start.click()
    studio._thread.join(120)
    assert not studio._thread.is_alive()
    return studio.said


def status(studio):
    return BeautifulSoup(studio._status.value, "html.parser").text


def failed(studio):
    return "alert" in studio._status.value


def kept(studio):
    """The page that the studio's link holds."""
    (link,) = BeautifulSoup(studio._explorer.value, "html.parser").find_all("a")
    return base64.b64decode(link["href"].split(",")[1]).decode()


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_debate_is_drawn_started_watched_and_ends_as_the_debate_itself(config, monkeypatch):
    monkeypatch.setattr(studio_module, "TICK", 0.01)  # it takes two tenths of a second
    made, shown, said = DebateStudio(config), [], []
    made._draw.click()
    made._screen.observe(lambda change: shown.append(change["new"]), "value")
    made._screen.observe(lambda change: said.append(made.said), "value")
    made._start.click()
    assert made._start.disabled and not made._stop.disabled
    first = made._thread
    made._start.click()  # a second time: nothing
    assert made._thread is first
    first.join(120)
    assert made.debates == {"base agents": [made.said]} and len(made.said.turns[0]) == 2
    assert not made._start.disabled and made._stop.disabled and "Finished" in status(made)
    assert len(shown) > 3 and made.said.turns[2][1].response.split()[0] in shown[-1]
    society = base_society(config.base_model, config.num_agents)
    assert run_debates(society, [made.said.problem], config, open_backend(config)) == [made.said]
    lengths = [sum(len(turn.response) for turns in d.turns for turn in turns) for d in said]
    assert lengths == sorted(lengths) and len(set(lengths)) > 3


def test_the_screen_changes_at_most_ten_times_a_second(config):
    made, times = studio(config, Typist(pause=0.02)), []
    made._screen.observe(lambda change: times.append(time.monotonic()), "value")
    finish(made)
    assert min(b - a for a, b in zip(times[:-1], times[1:-1])) > 0.09  # the last comes at once


def test_earlier_debates_are_kept_in_an_explorer_and_asked_again(config):
    made = studio(config, Typist())
    first = finish(made)
    made._question.value, made._truth.value = "What is 3+5?", "8"
    second = finish(made)
    data = unpacked(kept(made))
    assert [Debate.from_dict(row["debate"]) for row in data["debates"]] == [first, second]
    assert "All 2 debates so far" in made._explorer.value and "iframe" in made._explorer.value
    made._earlier.value = next(label for label in made._earlier.options if label.startswith("1. "))
    assert made._question.value == "What is 3+4?" and made._truth.value == ""
    made._earlier.value = next(label for label in made._earlier.options if label.startswith("2. "))
    assert finish(made) == second


def test_examples_fill_the_form_and_say_what_the_shipped_model_can_be_asked(config):
    made = DebateStudio(config, Typist())
    assert "four kinds of questions" in ADVICE and any(
        ADVICE in getattr(widget, "value", "") for widget in made.children
    )
    examples = [label for label in made._earlier.options if label]
    assert len(examples) == 4
    made._earlier.value = examples[2]
    assert made._task.value == "mini_math" and "$3x+9=39$" in made._question.value
    assert finish(made).problem.answer == ""
    other = DebateStudio(config.replace(model_name_or_path="another/model"), Typist())
    assert not any(ADVICE in str(getattr(widget, "value", "")) for widget in other.children)


def test_what_was_stored_is_not_timed(config):
    made = studio(config, CachedBackend(Typist(), Store(config.path(config.runs_dir))))
    finish(made)
    assert re.fullmatch(r"Finished: \d+ tokens in [\d.]+ s\.", status(made))
    finish(made)
    assert status(made) == "Finished: all 9 responses and summaries were in the store already."
    made._settings["num_rounds"].value = 3
    finish(made)
    assert "6 responses and summaries are new, 9 stored" in status(made)


def test_a_question_that_is_too_long_is_called_so(config):
    made = studio(config)
    made._question.value = "What is 3+4? " * 2_000
    finish(made)
    assert failed(made) and status(made) == "The question is too long for this model: shorten it."


def test_a_studio_can_be_stopped_and_started_again(config):
    made = studio(config, Typist(pause=0.03))
    made._start.click()
    wait_for(lambda: "I think" in made._screen.value)
    made._stop.click()
    wait_for(lambda: "Stopped" in status(made), 5)
    made._thread.join(5)
    assert "I think" in made._screen.value and made.debates == {} and made.said.vote is None
    assert "waiting" in made._screen.value and made._explorer.value == ""
    made._backend = Typist()
    assert finish(made).vote == "7" and "Finished" in status(made)


def test_stopping_in_the_middle_stores_nothing_unfinished(config, monkeypatch):
    monkeypatch.setattr(studio_module, "TICK", 0.01)
    made = studio(config)
    made._screen.observe(lambda change: made._stop.click(), "value")
    said = finish(made)
    assert "Stopped" in status(made) and any(turns for turns in said.turns) and said.vote is None
    backend = open_backend(config)
    assert len(backend.store) < 9  # responses and summaries of a whole debate
    setup = (base_society(config.base_model, 3), [said.problem], config)
    (whole,) = run_debates(*setup, TransformersBackend(Config(device="cpu", num_workers=1)))
    assert run_debates(*setup, backend) == [whole]  # nothing half written was taken for whole
    pairs = [
        (part[0].response, full[0].response) for part, full in zip(said.turns, whole.turns) if part
    ]
    assert all(full.startswith(part) for part, full in pairs)


def test_what_is_typed_needs_no_ground_truth(config):
    made = studio(config, Typist())
    problem = finish(made).problem
    assert problem.answer == "" and problem.source == "typed"
    assert "✗" not in made._screen.value and "✓" not in made._screen.value
    made._truth.value = "7"
    assert finish(made).problem.answer == "7" and "✓" in made._screen.value


@pytest.mark.parametrize(
    "name, value, sentence",
    [
        ("question", "  ", "no problem yet"),
        *((n, -1, n) for n in ("num_agents", "temperature", "seed")),
    ],
)
def test_what_cannot_be_asked_is_said_and_the_studio_goes_on(config, name, value, sentence):
    made = studio(config, Typist())
    control = made._question if name == "question" else made._settings[name]
    before, control.value = control.value, value
    made._start.click()
    assert made.said is None and sentence in status(made) and failed(made)
    assert not made._start.disabled
    control.value = before
    assert finish(made).vote == "7" and not failed(made)


def test_a_backend_that_fails_is_said_and_the_studio_goes_on(config):
    made = studio(config, ScriptedBackend(["<b>one</b> \\boxed{1}"]))
    finish(made)
    assert "the script ran out of answers" in status(made) and failed(made)
    assert "&lt;b&gt;one" in made._screen.value and made.debates == {}
    made._backend = Typist()
    assert finish(made).vote == "7"


def test_a_task_whose_files_are_missing_is_said(config, tmp_path):
    made = DebateStudio(config.replace(data_dir=str(tmp_path)))
    made._task.value = "gsm"
    made._draw.click()
    assert failed(made) and "\n" not in status(made)


def test_problems_are_drawn_one_after_the_other_by_the_seed(config):
    def drawn(studio, num):
        questions = []
        for _ in range(num):
            studio._draw.click()
            questions.append(studio._question.value)
        return questions

    made = DebateStudio(config, Typist())
    three = drawn(made, 3)
    assert len(set(three)) == 3 and three == drawn(DebateStudio(config), 3)
    assert drawn(DebateStudio(config.replace(seed=1)), 2) == three[1:]
    made._task.value = "mini_gsm"
    assert drawn(made, 1)[0] not in three
    problem = finish(made).problem
    assert problem.styles and problem.answer == made._truth.value != ""
    made._question.value += " Really?"
    typed = finish(made).problem
    assert typed.source == "typed" and typed.answer == made._truth.value == ""


def test_the_form_decides_how_is_debated(config):
    backend = ScriptedBackend(lambda request: "\\boxed{7}")
    made = studio(config, backend)
    wanted = {"num_agents": 4, "num_rounds": 3, "seed": 5, "temperature": 0.5, "max_tokens": 33}
    wanted["cooperative"] = True
    for name, value in wanted.items():
        made._settings[name].value = value
    said = finish(made)
    assert len(backend.requests) == 4 + 2 * 8
    assert backend.requests[0].sampling == Sampling(0.5, config.top_p, 33)
    assert "Derive a new solution" in said.turns[0][1].asked
    setup = (base_society(config.base_model, 4), [said.problem], config.replace(**wanted))
    assert run_debates(*setup, backend) == [said]


def test_text_of_models_stays_text(config):
    made = studio(config, Typist(HOSTILE))
    made._question.value, made._task.value = HOSTILE, "mini_math"
    finish(made)
    for html in [widget.value for widget in (made._screen, made._status, made._explorer)]:
        page = BeautifulSoup(html, "html.parser")
        assert not page.find_all(["script", "img"]) and "onerror" not in str(
            [tag.attrs for tag in page.find_all(True)]
        )
    assert "alert(1)" in BeautifulSoup(made._screen.value, "html.parser").text


# Finetuned agents


@pytest.mark.pipeline
def test_finetuned_agents_of_a_study_debate_as_they_did_there(config):
    small = config.replace(num_train=6, num_eval=4, num_iterations=1, num_agents=2)
    small = small.replace(learning_rate=1e-3, critic_learning_rate=1e-3)  # so that they differ
    assert DebateStudio(small)._agents.options == ("base agents",)
    result = run_study("multiagent_ft", "arithmetic", small, report=str)
    made = DebateStudio(small)
    base, finetuned = made._agents.options
    assert finetuned.startswith("Multiagent FT, arithmetic, seed 0, iteration 1: ")
    made._agents.value = finetuned
    problem = result.evaluations[1][0].problem
    made._question.value, made._task.value = problem.question, problem.task
    made._truth.value = problem.answer
    before = open_backend(small).num_calls
    assert replace(finish(made), problem=problem) == result.evaluations[1][0]
    assert open_backend(small).num_calls == before
    made._agents.value = base
    assert finish(made).turns != result.evaluations[1][0].turns


@pytest.fixture
def alone(config, model):
    """A saved society of one finetuned agent."""
    runs = config.path(config.runs_dir)
    (runs / "checkpoints" / "one").mkdir(parents=True)
    alone = base_society(str(runs / "checkpoints" / "one"), 1, summarizer=model)
    about = {"method": "star", "task": "arithmetic", "seed": 0, "iteration": 1, "accuracy": 0.5}
    save_society(runs, alone, **about)
    return alone


def test_one_finetuned_agent_alone_answers_once(config, alone):
    made = studio(config, backend := ScriptedBackend(lambda request: "\\boxed{7}"))
    assert made._agents.options[1:] == ("STaR, arithmetic, seed 0, iteration 1: 50 %",)
    made._agents.index = 1
    assert len(finish(made).turns[0]) == 1
    assert [request.model for request in backend.requests] == [alone.generators[0].model]
    made._agents.index = 0
    assert len(finish(made).turns[0]) == 2


def test_base_agents_debate_the_same_question_below_the_chosen_ones(config, alone):
    made = studio(config, backend := ScriptedBackend(lambda request: "\\boxed{7}"))
    made._agents.index, made._beside.value = 1, True
    finish(made)
    assert [request.model for request in backend.requests][:2] == [
        alone.generators[0].model,
        config.base_model,
    ]
    names = list(made.debates)
    assert names == [made._agents.options[1], "base agents"]
    screen = BeautifulSoup(made._screen.value, "html.parser")
    assert [title.text for title in screen("h3")] == names and len(screen(class_="maft-debate")) == 2
    first, second = (debate.problem for (debate,) in made.debates.values())
    assert first == second
    made._agents.index = 0
    finish(made)
    assert [len(debates) for debates in made.debates.values()] == [1, 2]


def test_who_stops_does_not_have_to_stop_the_base_agents_too(config, alone, monkeypatch):
    monkeypatch.setattr(studio_module, "TICK", 0)
    made = studio(config, Typist())
    made._agents.index, made._beside.value = 1, True
    made._screen.observe(lambda change: made._stop.click(), "value")
    finish(made)
    assert made.debates == {} and "Stopped" in made._status.value
    assert "base agents" not in made._screen.value


def test_no_thread_of_a_debate_is_left(config):
    before = threading.active_count()
    finish(studio(config, Typist()))
    wait_for(lambda: threading.active_count() <= before)
