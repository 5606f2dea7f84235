"""The OpenAI-protocol backend and fine-tuning jobs, against a real server on this machine."""

import asyncio
import json
import logging
import re
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from maft_lib.backends import BackendError, Request, Sampling, generate
from maft_lib.backends.hub import identity
from maft_lib.backends.openai import OpenAIBackend, scrub, served_name
from maft_lib.backends.opening import CachedBackend
from maft_lib.backends.transformers import TransformersBackend
from maft_lib.config import Config
from maft_lib.debate import run_debates
from maft_lib.profiles import load_config
from maft_lib.prompts import load_prompts
from maft_lib.run import run_study
from maft_lib.society import Agent, base_society
from maft_lib.store import Store
from maft_lib.store.files import content_key
from maft_lib.tasks import load_problems
from maft_lib.training.data import Example, build_finetuning_data
from maft_lib.training.finetuning import finetune, finetune_all, training_log
from tests.openai_server import BASE, HANG, NUM_WORKERS, Server

pytest.importorskip("openai")

KEY = "sk-planted-9f8e7d6c5b4a"
CHAT, JOBS = "/chat/completions", "/fine_tuning/jobs"
PROBLEMS = load_problems("arithmetic", "eval", 8, max_operand=9)
TURNS = (
    {"role": "user", "content": "What is the result of 1+2*3+4-5*1?"},
    {"role": "assistant", "content": "2*3=6. The answer is \\boxed{6}."},
)
CRITIC_TURNS = (
    TURNS[0],
    {"role": "assistant", "content": "2*3=5. The answer is \\boxed{5}."},
    {"role": "user", "content": "Others say 6. What is the result of 1+2*3+4-5*1?"},
    TURNS[1],
)


@pytest.fixture
def server(model, tmp_path, monkeypatch):
    """A server of the shipped model; the environment names it."""
    with Server(model, tmp_path / "server", KEY) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server


@pytest.fixture
def hosted(config):
    """A config whose models are the server's."""
    return config.replace(
        backend="openai", model_name_or_path=BASE, max_retries=3, request_timeout=20.0
    )


def patient(max_retries=3, request_timeout=20.0, max_concurrency=16):
    limits = {"max_retries": max_retries, "max_concurrency": max_concurrency}
    return OpenAIBackend(Config(**limits, request_timeout=float(request_timeout)))


def requests(model=BASE, num=8, temperature=1.0, max_tokens=64):
    """Requests for the answers to arithmetic problems."""
    drawn, prompts = Sampling(temperature, 1.0, max_tokens), load_prompts()
    return [
        Request(model, (prompts.generation(p),), drawn, 2**40 + i) for i, p in enumerate(PROBLEMS[:num])
    ]


def directly(asked, folder):
    """What the transformers backend says to requests, with the seeds that are sent."""
    engine = TransformersBackend(Config(device="cpu", num_workers=NUM_WORKERS))
    return generate(engine, [replace(r, model=folder, seed=r.seed % 2**31) for r in asked])


def check_chat_server(base_url, folder, served=None, key="none"):
    """A chat server of the model in `folder`, which it calls `served`, answers as transformers do.

    Greedy text, finish reasons and usage of eight concurrent requests.
    """
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_BASE_URL", base_url)
        environment.setenv("OPENAI_API_KEY", key)
        asked = requests(served or str(folder), 8, temperature=0.0)
        answers = generate(OpenAIBackend(Config(max_concurrency=8)), asked)
    assert answers == directly(asked, str(folder))
    assert all(a.num_prompt_tokens > 0 and a.num_completion_tokens > 0 for a in answers)


def check_secrets(server, *texts):
    """Neither the key nor the address is in any of `texts`."""
    address = server.url.removeprefix("http://").removesuffix("/v1")
    for text in texts:
        assert KEY not in text and address not in text


def failure(backend, asked, match):
    """The whole traceback of a request that fails, with every exception in its chain."""
    with pytest.raises(BackendError, match=match) as caught:
        generate(backend, asked)
    assert caught.value.__cause__ is None
    assert "\n" not in str(caught.value)
    return "".join(traceback.format_exception(caught.value)) + repr(caught.value)


# Chat


def test_a_server_answers_as_the_engine_behind_it(server, model):
    check_chat_server(server.url, model, BASE, KEY)
    asked = requests()
    answers = generate(patient(), asked)
    assert answers == directly(asked, model)
    assert len({a.text for a in answers}) > 1
    assert {chat["seed"] for chat in server.chats if chat["temperature"]} == set(range(8))
    assert all("seed" not in chat for chat in server.chats if not chat["temperature"])


def test_no_more_requests_are_in_flight_than_allowed(server):
    """Whatever the number of threads that ask: studies run side by side."""
    backend = patient(max_concurrency=3)
    asked = [requests(), requests(num=4), requests(temperature=0.0)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda batch: generate(backend, batch), asked))
    assert 1 < server.most_in_flight <= 3
    assert answers[0][:4] == answers[1] and list(map(len, answers)) == [8, 4, 8]
    generate(backend, asked[0])  # its event loop had ended meanwhile


@pytest.mark.parametrize("fault", ["429", "500", "503", "drop"])
def test_a_passing_fault_is_retried(server, model, fault):
    asked = requests(num=1)
    server.faults[CHAT] = [fault]
    began = time.monotonic()
    assert generate(patient(), asked) == directly(asked, model)
    assert server.count("POST", CHAT) == 2
    assert time.monotonic() - began > (1.0 if fault == "429" else 0.3)  # Retry-After, or the pause


def test_a_server_that_hangs_is_asked_again(server, model):
    asked = requests(num=1)
    generate(patient(), asked)  # its workers have started
    server.faults[CHAT] = ["hang"]
    began = time.monotonic()
    assert generate(patient(request_timeout=4), asked) == directly(asked, model)
    assert 4 <= time.monotonic() - began < HANG


def test_a_fault_that_stays_is_one_sentence(server):
    server.faults[CHAT] = ["500"] * 9
    text = failure(patient(max_retries=3), requests(num=1), "no answer after all retries")
    assert server.count("POST", CHAT) == 4
    check_secrets(server, text)  # the server's message quotes the key
    for fault in ("no_json", "no_choices"):
        server.faults[CHAT] = [fault]
        failure(patient(), requests(num=1), f"model {BASE}: .*OPENAI_BASE_URL")


def test_an_emptied_answer_is_an_answer(server):
    server.faults[CHAT] = ["filtered", "no_content"]
    answers = [generate(patient(), requests(num=1))[0] for _ in "12"]
    assert [(a.text, a.finish_reason) for a in answers] == [("", "content_filter"), ("", "stop")]
    assert server.count("POST", CHAT) == 2


def test_what_came_before_an_error_is_kept_and_nothing_new_is_asked(server, tmp_path):
    store, asked = Store(tmp_path / "store"), requests()
    server.faults[CHAT] = ["", "", "400"]
    cached = CachedBackend(patient(max_concurrency=1), store)
    with pytest.raises(BackendError, match="the server refuses this .the server is 400 for [*]+."):
        generate(cached, asked)
    assert len(store) == 2 and server.count("POST", CHAT) == 3
    assert len(generate(cached, asked)) == 8 and server.count("POST", CHAT) == 3 + 6


# What servers refuse, and the shapes of what they say


PYDANTIC = {
    "detail": [
        {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}
    ]
}
REFUSALS = {
    "an unknown seed": {"seed": (400, "Unrecognized request argument supplied: seed")},
    "a forbidden seed": {"seed": (422, PYDANTIC)},
    "a seed without support": {"seed": (400, "`seed` is not supported by this model.")},
    "temperature with top_p": {
        "temperature top_p": (400, "`temperature` and `top_p` cannot both be specified for this model.")
    },
    "the older name": {
        "max_tokens": (
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
        )
    },
}
REFUSALS["all of them"] = {
    name: how for rules in list(REFUSALS.values()) for name, how in rules.items()
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_a_server_does_not_take_is_left_out_once(kind, server, model):
    server.refuses = REFUSALS[kind]
    backend, asked = (
        patient(),
        requests(num=4, temperature=0.0 if "seed" not in str(REFUSALS[kind]) else 1.0),
    )
    with pytest.warns(UserWarning, match="the server does not take") as caught:
        answers = generate(backend, asked)
    said = [str(w.message) for w in caught if w.category is UserWarning]  # no socket's warning
    assert len(set(said)) == len(said) == len(REFUSALS[kind])
    seen = len(server.chats)
    assert len(generate(backend, asked)) == len(answers) == 4
    assert len(server.chats) == seen + 4  # it is not tried again
    last = server.chats[-1]
    assert not any(last.keys() >= set(names.split()) for names in REFUSALS[kind])
    assert last.get("max_tokens", last.get("max_completion_tokens")) == 64


@pytest.mark.parametrize(
    "names, words",
    [
        ("temperature", "temperature must be at most 2"),
        ("seed", "seed must be below 2147483648"),
        ("temperature", "Unsupported value: 'temperature' does not support 0.7 with this model."),
        ("messages", "messages: roles must alternate"),
    ],
)
def test_a_wrong_value_is_not_left_out(names, words, server):
    server.refuses = {names: (400, words)}
    text = failure(patient(), requests(num=1), "the server refuses this")
    assert words.rstrip(".") in text and len(server.chats) == 1


def message(**said):
    return {"choices": [{"message": {"role": "assistant", **said}, "finish_reason": "stop"}]}


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "1+1"}]}
SAID = {
    "parts": (
        message(content=[{"type": "text", "text": "It "}, {"type": "text", "text": "is 2."}]),
        "",
    ),
    "a part with its thought": (
        message(content=[THINKING, {"type": "text", "text": "It is 2."}]),
        "1+1",
    ),
    "a part without words": (
        message(content=[{"type": "text", "text": None}, {"type": "text", "text": "It is 2."}]),
        "",
    ),
    "words as parts": (message(content=["It is ", "2."]), ""),
    "reasoning_content": (message(content="It is 2.", reasoning_content="1+1"), "1+1"),
    "reasoning": (message(content="It is 2.", reasoning="1+1"), "1+1"),
    "reasoning in both": (message(content="It is 2.", reasoning="1+1", reasoning_content="1+1"), "1+1"),
    "no reasoning": (message(content="It is 2.", reasoning_content=None), ""),
    "a thought in the text": (message(content="<think>1+1</think>It is 2.", reasoning=None), "1+1"),
    "a refusal": (message(content=None, refusal="It is 2."), ""),
    "a name for the answer": (message(content="It is 2.", name="bot", tool_calls=None), ""),
}


@pytest.mark.parametrize("kind", SAID)
def test_what_a_server_says(kind, server):
    server.says, thought = SAID[kind]
    (answer,) = generate(patient(), requests(num=1))
    assert (answer.text, answer.reasoning) == ("It is 2.", thought)


def test_a_thought_alone_is_no_answer(server):
    server.says = message(content=None, reasoning_content="1+1 is")
    server.says["choices"][0]["finish_reason"] = "length"
    (answer,) = generate(patient(), requests(num=1))
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("", "1+1 is", "length")


def chunk(**delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
STREAMED = {
    "words": ([chunk(role="assistant"), chunk(content="It "), chunk(content="is 2."), END], ""),
    "choices null": ([{"choices": None}, chunk(content="It is 2."), {"choices": None}, END], ""),
    "no choices": ([{"object": "ping"}, chunk(content="It is 2."), END], ""),
    "empty choices": ([{"choices": []}, chunk(content="It is 2."), END, {"choices": []}], ""),
    "delta null": ([{"choices": [{"index": 0, "delta": None}]}, chunk(content="It is 2."), END], ""),
    "no delta": ([{"choices": [{"index": 0}]}, chunk(content="It is 2."), END], ""),
    "an end without delta": (
        [chunk(content="It is 2."), {"choices": [{"index": 0, "finish_reason": "stop"}]}],
        "",
    ),
    "a choice that is null": ([{"choices": [None]}, chunk(content="It is 2."), END], ""),
    "parts": ([chunk(content=[{"type": "text", "text": "It is "}]), chunk(content="2."), END], ""),
    "reasoning_content": ([chunk(reasoning_content="1+"), chunk(reasoning_content="1")]
        + [chunk(content="It is 2."), END], "1+1"),
    "reasoning": ([chunk(reasoning="1+1"), chunk(content="It is 2.", reasoning=None), END], "1+1"),
    "a thought as a part": ([chunk(content=[THINKING]), chunk(content="It is 2."), END], "1+1"),
    "usage null": ([{**chunk(content="It is 2."), "usage": None}, END], ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", STREAMED)
def test_chunks_that_a_server_streams(kind, server):
    chunks, thought = STREAMED[kind]
    server.says = "".join(f"data: {json.dumps(c)}\n\n" for c in [*chunks, "[DONE]"]).encode()
    server.says = server.says.replace(b'"[DONE]"', b"[DONE]")
    heard = []
    (answer,) = generate(patient(), requests(num=1), lambda index, text: heard.append(text))
    assert (answer.text, answer.reasoning) == ("It is 2.", thought)
    assert server.chats[0]["stream"]


def test_a_server_without_usage_in_streams(server):
    server.refuses = {"stream_options": (400, "Unknown parameter: 'stream_options'.")}
    server.says = b"data: " + json.dumps(chunk(content="It is 2.")).encode() + b"\n\n"
    server.says += b"data: " + json.dumps(END).encode() + b"\n\ndata: [DONE]\n\n"
    with pytest.warns(UserWarning, match="does not take stream_options"):
        (answer,) = generate(patient(), requests(num=1), lambda index, text: None)
    assert answer.text == "It is 2."


ADVICE = {
    "a wrong key": (401, "no", "OPENAI_API_KEY"),
    "no access": (403, "your project has no access to it", "OPENAI_API_KEY"),
    "no such model": (404, "no such model", "model_name_or_path"),
    "too many": (429, "Rate limit reached", "max_concurrency"),
    "no money": (429, "You exceeded your current quota, please check your plan and billing", "billing"),
    "too long": (400, "This model's maximum context length is 4096 tokens", "max_tokens"),
    "too long for vLLM": (
        400,
        "'max_tokens' is too large: 2048. This model's context is 512",
        "max_tokens",
    ),
    "too large": (413, "Request too large", "max_tokens"),
    "a fault": (500, "oops", "run again later"),
    "overloaded": (503, "overloaded", "run again later"),
}


@pytest.mark.parametrize("kind", ADVICE)
def test_advice_fits_its_cause(kind, server):
    status, words, advice = ADVICE[kind]
    server.refuses = {"messages": (status, words)}
    failure(patient(max_retries=0), requests(num=1), rf"\): [^()]*{advice}|{advice}.*: export")


def test_advice_where_nobody_answers(server, monkeypatch):
    server.faults[CHAT] = ["hang"]
    text = failure(patient(max_retries=0, request_timeout=1), requests(num=1), "raise request_timeout")
    assert "/v1" not in text.split("BackendError")[-1]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    failure(patient(max_retries=0), requests(num=1), "OPENAI_BASE_URL.*(runs|started)")


@pytest.mark.parametrize("thinks", [True, False, None])
def test_whether_to_think_is_passed_on(thinks, server):
    server.says = message(content="It is 2.")
    backend = OpenAIBackend(Config(enable_thinking=thinks))
    generate(backend, requests(num=1))
    wanted = {} if thinks is None else {"chat_template_kwargs": {"enable_thinking": thinks}}
    assert {k: v for k, v in server.chats[0].items() if k == "chat_template_kwargs"} == wanted
    keys = [content_key(b.describe(requests(num=1)[0])) for b in (backend, patient())]
    assert (keys[0] == keys[1]) == (thinks is None)


def test_errors_that_do_not_pass_are_one_sentence(server, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    text = failure(patient(), requests("gpt-9"), "model gpt-9: the server refuses this")
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "-wrong")
    text += failure(patient(), requests(num=1), "does not accept OPENAI_API_KEY")
    assert server.seen.count(("POST", CHAT)) <= 8 + 1  # no retries
    monkeypatch.setenv("OPENAI_API_KEY", "not a key")
    failure(patient(), requests(num=1), "OPENAI_API_KEY is not set to a key")
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    failure(patient(), requests(num=1), "OPENAI_API_KEY is not set")
    check_secrets(server, text, caplog.text, *map(repr, caplog.records))


@pytest.mark.parametrize("address", ["localhost:1/v1", "http://[::1", "http://127.0.0.1:1/v1"])
def test_an_address_that_leads_nowhere(server, monkeypatch, address):
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    text = failure(
        patient(max_retries=1), requests(num=1), "OPENAI_BASE_URL|no answer after all retries"
    )
    assert address not in text


def test_messages_are_scrubbed(server):
    address = server.url.removeprefix("http://")
    masked = "the key sk-pla***5b4a or sk-other-1.2 is wrong."
    check_secrets(server, scrub(f"{KEY} at {server.url}/files, {address}"))
    assert scrub(masked) == "the key *** or *** is wrong"


def test_it_runs_where_an_event_loop_is_running(server, model):
    async def cell():
        return generate(patient(), asked)

    asked = requests(num=2)
    assert asyncio.run(cell()) == directly(asked, model)


def test_a_description_tells_what_a_response_depends_on(server, monkeypatch):
    backend, request = patient(), requests(num=1)[0]
    greedy = replace(request, sampling=Sampling(0.0, 1.0, 64))
    described = [
        backend.describe(r)
        for r in (
            request,
            replace(request, model="other"),
            replace(request, messages=TURNS[:1]),
            replace(request, sampling=Sampling(0.5, 1.0, 64)),
            replace(request, sampling=Sampling(1.0, 1.0, 65)),
            replace(request, seed=request.seed + 1),
            greedy,
        )
    ]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere:8000/v1")
    described.append(backend.describe(request))
    monkeypatch.delenv("OPENAI_BASE_URL")
    described.append(backend.describe(request))
    assert len({content_key(d) for d in described}) == len(described)
    assert backend.describe(greedy) == backend.describe(replace(greedy, seed=1))
    check_secrets(server, json.dumps(described), repr(backend))


INTERRUPTED = """
import sys
from maft_lib.backends.opening import CachedBackend
from maft_lib.store import Store
from tests.test_openai import patient, requests

backend = CachedBackend(patient(request_timeout=60), Store(sys.argv[1]))
try:
    for _ in backend.stream(requests()):
        print("one", flush=True)
except KeyboardInterrupt:
    print("interrupted")
"""


def start(script, *arguments):
    """A Python process of its own, in the folder of the project, that Ctrl-C interrupts.

    A shell's background jobs, and this test among them, may be started with that signal ignored.
    """
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_an_interrupt_ends_it_at_once_and_keeps_what_came(server, tmp_path):
    generate(patient(), requests())
    server.faults[CHAT] = ["", "", "", *["hang"] * 5]
    process = start(INTERRUPTED, tmp_path / "store")
    assert [process.stdout.readline() for _ in range(3)] == ["one\n"] * 3
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=HANG)
    assert time.monotonic() - began < 10 and output == "interrupted\n", errors
    assert len(Store(tmp_path / "store")) == 3


# Fine-tuning jobs


def lessons(num=12):
    """A generation agent and a critic with something to learn."""
    return [
        (Agent("generation-1", "generator", BASE), [Example(f"{i}", TURNS) for i in range(num)]),
        (Agent("critic-1", "critic", BASE), [Example(f"{i}", CRITIC_TURNS) for i in range(num)]),
    ]


@pytest.mark.parametrize("critic_loss_on", ["final_turn", "all_turns"])
def test_a_job_trains_what_training_here_does(server, hosted, config, model, tmp_path, critic_loss_on):
    """To the last byte: the same data, settings, seed and turns with a loss."""
    hosted = hosted.replace(critic_loss_on=critic_loss_on, num_train_epochs=2)
    folders = finetune_all(lessons(), hosted)
    for (agent, examples), folder in zip(lessons(), folders):
        here = config.replace(
            critic_loss_on=critic_loss_on, num_train_epochs=2, runs_dir=str(tmp_path / "here")
        )
        same = finetune(replace(agent, model=model), examples, here)
        assert identity(server.models[served_name(str(folder))]) == identity(str(same))
        log, local = training_log(folder), training_log(same)
        assert log.keys() <= local.keys() and log["peak_memory"] is None
        for name in ("num_examples", "num_tokens", "losses", "loss_on"):
            assert log[name] == local[name]
        assert log["settings"]["num_train_epochs"] == local["settings"]["num_train_epochs"]
    assert len(log["losses"]) > 1  # events come in pages


def test_only_the_trained_turns_have_weight(server, hosted):
    finetune_all(lessons(), hosted)
    rows = [json.loads(content.splitlines()[0])["messages"] for content in server.files.values()]
    assert [[m.get("weight") for m in row] for row in rows] == [[None, None], [None, 0, None, None]]


def test_a_finished_agent_costs_no_call_and_needs_no_key(server, hosted, monkeypatch, capsys):
    first = finetune_all(lessons(), hosted)
    assert re.search(r"critic-1: ftjob-\d made ft:miniature:\S+ in \d+ s\.", capsys.readouterr().out)
    seen = len(server.seen)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert finetune_all(lessons(), hosted) == first
    assert len(server.seen) == seen and len(server.jobs) == 2
    with pytest.raises(BackendError, match="OPENAI_API_KEY is not set"):
        finetune_all(lessons(), hosted.replace(seed=1))


def test_agents_go_on_from_themselves_or_from_the_base(server, hosted):
    agent, examples = lessons()[0]
    (once,) = finetune_all([(agent, examples)], hosted)
    again = replace(agent, model=str(once))
    (twice,) = finetune_all([(again, examples)], hosted)
    (from_base,) = finetune_all([(again, examples)], hosted.replace(train_from="base"))
    assert from_base == once != twice
    assert [job["model"] for job in server.jobs.values()] == [BASE, served_name(str(once))]


def test_a_finetuned_agent_answers_by_its_checkpoint(server, hosted):
    (folder,) = finetune_all(lessons()[:1], hosted.replace(learning_rate_multiplier=20.0))
    asked = requests(str(folder))
    answers = generate(patient(), asked)
    assert answers == directly(asked, server.models[served_name(str(folder))])
    assert answers != directly(asked, server.models[BASE])


def test_a_job_whose_answer_was_lost_is_not_paid_twice(server, hosted):
    server.faults[f"POST {JOBS}"] = ["after_drop"]
    server.faults[f"GET {JOBS}"] = ["", "429"]  # when it is looked for
    finetune_all(lessons()[:1], hosted)
    assert len(server.jobs) == 1 and server.count("POST", JOBS) == 1


def test_faults_while_polling_pass(server, hosted):
    server.faults[JOBS + "/ftjob-1"] = ["500", "drop"]
    (folder,) = finetune_all(lessons()[:1], hosted)
    assert training_log(folder)["losses"]


def test_jobs_wait_for_their_turn(server, hosted):
    server.max_active_jobs, server.job_seconds = 1, 2.0
    folders = finetune_all(lessons(), hosted.replace(max_retries=0))
    assert len(set(folders)) == len(server.jobs) == 2


def test_a_failed_job_is_said_and_forgotten(server, hosted):
    server.faults["job"] = ["job_failed"]
    with pytest.raises(BackendError, match="ftjob-1 failed, the server says: .* too few examples") as e:
        finetune_all(lessons()[:1], hosted)
    check_secrets(server, "".join(traceback.format_exception(e.value)))
    (folder,) = finetune_all(lessons()[:1], hosted)
    assert training_log(folder)["num_examples"] == 12 and len(server.jobs) == 2


def test_a_refused_job_is_one_sentence(server, hosted):
    with pytest.raises(BackendError, match="gpt-9 for generation-1: the server refuses") as caught:
        finetune_all([(Agent("generation-1", "generator", "gpt-9"), lessons()[0][1])], hosted)
    assert "\n" not in str(caught.value)


def test_what_jobs_cannot_do_is_refused(server, hosted):
    agent, examples = lessons()[0]
    with pytest.raises(BackendError, match="no adapters: leave lora_rank out"):
        finetune_all([(agent, examples)], hosted.replace(lora_rank=4))
    with pytest.warns(UserWarning, match="generation-1 has no example"):
        assert finetune_all([(agent, [])], hosted) == [Path(BASE)]
    assert not server.seen


KILLED = """
import sys
from maft_lib.training.finetuning import finetune_all
from maft_lib.profiles import load_config
from tests.test_openai import BASE, lessons

config = load_config("smoke", runs_dir=sys.argv[1], backend="openai", model_name_or_path=BASE)
print(*finetune_all(lessons(), config), sep="\\n")
"""


def test_a_killed_run_goes_on_with_the_same_jobs(server, tmp_path):
    server.job_seconds = 8.0
    process = start(KILLED, tmp_path / "runs")
    while len(server.jobs) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert {job["status"] for job in server.jobs.values()} == {"running"}
    process = start(KILLED, tmp_path / "runs")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(server.jobs) == server.count("POST", JOBS) == 2
    check_secrets(server, output, errors)


# Whole studies


class Direct:
    """The transformers backend, given what a server would be."""

    name = "direct"

    def __init__(self, server):
        self.server = server

    def stream(self, asked):
        folders = [self.server.models[served_name(r.model)] for r in asked]
        sent = [replace(r, model=f, seed=r.seed % 2**31) for r, f in zip(asked, folders)]
        yield from TransformersBackend(Config(device="cpu", num_workers=NUM_WORKERS)).stream(sent)


def small(hosted):
    return hosted.replace(num_train=10, num_eval=6, num_agents=2, num_iterations=1, max_tokens=64)


def test_debates_and_finetuning_over_the_protocol(server, hosted):
    """One iteration of Algorithm 1: every debate is, to the byte, that of the engine behind."""
    hosted, society = small(hosted), base_society(BASE, 2)
    problems = load_problems("arithmetic", "train", 10, max_operand=9)
    debates = run_debates(society, problems, hosted, patient())
    assert debates == run_debates(society, problems, hosted, Direct(server))
    data = build_finetuning_data(debates, hosted.w)
    agents = [*society.generators, *society.critics]
    jobs = [*zip(agents, [d.generation for d in data] + [d.critic for d in data])]
    jobs = [(agent, examples) for agent, examples in jobs if examples]
    assert len(jobs) > 1
    models = dict(zip([agent for agent, _ in jobs], map(str, finetune_all(jobs, hosted))))
    trained = [replace(a, model=models.get(a, a.model)) for a in agents]
    society = replace(society, generators=tuple(trained[:2]), critics=tuple(trained[2:]))
    after = run_debates(society, problems, hosted, patient(), 1)
    assert after == run_debates(society, problems, hosted, Direct(server), 1)


@pytest.mark.pipeline
@pytest.mark.filterwarnings("ignore:.*has no example:UserWarning")
def test_a_whole_study_leaves_no_secret(server, hosted, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    hosted = small(hosted)
    server.faults[CHAT] = ["429", "500", "", "drop"]
    store = Store(hosted.path(hosted.runs_dir))
    cached = CachedBackend(patient(), store)
    result = run_study("multiagent_ft", "arithmetic", hosted, cached)
    assert set(result.frame.iteration) == {0, 1} and len(server.jobs) > 1
    calls, seen = cached.num_calls, len(server.seen)
    again = run_study("multiagent_ft", "arithmetic", hosted, cached)
    assert (cached.num_calls, len(server.seen)) == (calls, seen)
    assert again.frame.equals(result.frame)
    store.close()
    files = [f for f in hosted.path(hosted.runs_dir).rglob("*") if f.is_file()]
    assert any(f.name == "openai.json" for f in files)
    written = capfd.readouterr()
    check_secrets(
        server, *(f.read_bytes().decode("latin-1") for f in files), repr(result), repr(cached)
    )
    check_secrets(server, caplog.text, written.out, written.err, repr(cached.inner))


def test_the_profile_is_the_papers():
    """Appendix B.3: two epochs, batches of one, a multiplier of one."""
    config = load_config("gpt35")
    assert (config.backend, config.num_train_epochs, config.critic_num_train_epochs) == ("openai", 2, 2)
    assert (config.per_device_train_batch_size, config.learning_rate_multiplier) == (1, 1.0)
    assert (config.num_agents, config.num_rounds, config.num_train) == (3, 2, 500)
    assert [config.num_problems("eval", task) for task in ("gsm", "math")] == [1000, 500]
    assert (config.temperature, config.top_p, config.max_tokens) == (1.0, 0.9, 2048)
    assert config.model_name_or_path == "gpt-3.5-turbo-0125"
