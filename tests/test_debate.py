"""Who is asked what, in which order, and who sees what; on the scripted backend."""

import json
import re

import pytest

from maft_lib.backends import BackendError, Completion
from maft_lib.debate import Debate, run_debates
from maft_lib.lab import html
from maft_lib.society import Society, base_society
from maft_lib.tasks import load_problems
from tests.scripted import ScriptedBackend


def script(request):
    """First answers are the agent's seed in short; critics and summaries say what they are."""
    last = request.messages[-1]["content"]
    if last.startswith("These are the responses"):
        return "SUMMARY OF " + "; ".join(re.findall(r"Agent \d+: (.*)", last))
    number = request.seed % 1000
    return f"round {len(request.messages) // 2 + 1}, seed {number}: \\boxed{{{number}}}"


@pytest.fixture
def problems():
    return load_problems("arithmetic", "eval", 2, max_operand=9)


def test_requests_come_in_lock_step(config, problems):
    backend = ScriptedBackend(script)
    run_debates(base_society("base", 3), problems, config.replace(num_rounds=3), backend)
    kinds = [
        "summary" if r.messages[-1]["content"].startswith("These are") else len(r.messages)
        for r in backend.requests
    ]
    assert kinds == [1] * 6 + ["summary"] * 6 + [3] * 6 + ["summary"] * 6 + [5] * 6


def test_a_critic_reads_its_own_past_and_the_others_previous_round(config, problems):
    backend = ScriptedBackend(script)
    debates = run_debates(base_society("base", 3), problems, config.replace(num_rounds=3), backend)
    for debate in debates:
        for n, turns in enumerate(debate.turns):
            for m in (1, 2):
                others = [t[m - 1].response for k, t in enumerate(debate.turns) if k != n]
                assert turns[m].summary == "SUMMARY OF " + "; ".join(others)
                assert turns[m].summary in turns[m].asked
                assert debate.problem.question in turns[m].asked
                assert turns[m - 1].response not in turns[m].asked
    last = backend.requests[-1]
    expected = debates[1].conversation(2)
    assert [*last.messages] == expected[:-1]
    assert [m["role"] for m in expected] == ["user", "assistant"] * 3


def test_generators_speak_first_then_critics_and_the_base_summarizes(config, problems):
    backend = ScriptedBackend(script)
    society = base_society("trained", 2, summarizer="base")
    critics = tuple(type(a)(a.name, a.role, f"critic {n}") for n, a in enumerate(society.critics))
    run_debates(Society(society.generators, critics, society.summarizer), problems, config, backend)
    models = [r.model for r in backend.requests]
    assert models == ["trained"] * 4 + ["base"] * 4 + ["critic 0"] * 2 + ["critic 1"] * 2


def test_without_summaries_responses_are_concatenated(config, problems):
    backend = ScriptedBackend(script)
    quiet = config.replace(summarize=False)
    debates = run_debates(base_society("base", 3), problems, quiet, backend)
    assert len(backend.requests) == 2 * 6
    for turns in debates[0].turns:
        others = [t[0].response for t in debates[0].turns if t is not turns]
        assert turns[1].summary is None
        assert all(response in turns[1].asked for response in others)
        assert turns[0].response not in turns[1].asked


def test_every_request_has_a_seed_of_its_own(config, problems):
    seeds = []
    for iteration in (0, 1):
        backend = ScriptedBackend(script)
        run_debates(base_society("base", 3), problems, config, backend, iteration)
        seeds += [r.seed for r in backend.requests]
    assert len(set(seeds)) == len(seeds)


def test_seeds_do_not_depend_on_the_other_problems(config, problems):
    together, alone = ScriptedBackend(script), ScriptedBackend(script)
    both = run_debates(base_society("base", 3), problems, config, together)
    one = run_debates(base_society("base", 3), problems[1:], config, alone)
    assert both[1] == one[0]


def test_one_round_is_a_vote_over_first_answers(config, problems):
    texts = [f"\\boxed{{{n}}}" for n in (7, 1, 7, 2, 8, 2)]
    debates = run_debates(
        base_society("base", 3), problems, config.replace(num_rounds=1), ScriptedBackend(texts)
    )
    assert [d.answers for d in debates] == [[["7"], ["7"], ["8"]], [["1"], ["2"], ["2"]]]
    assert [d.vote for d in debates] == ["7", "2"]


def test_thoughts_are_kept_apart_from_what_others_read_and_vote_on(config, problems):
    def thinking(request):
        return f"<think>Is it \\boxed{{3}}? No.</think>\n{script(request)}"

    backend = ScriptedBackend(thinking)
    debates = run_debates(base_society("base", 3), problems, config, backend)
    plain = run_debates(base_society("base", 3), problems, config, ScriptedBackend(script))
    assert [d.answers for d in debates] == [d.answers for d in plain]
    assert [d.vote for d in debates] == [d.vote for d in plain]
    assert not any("Is it" in m["content"] for r in backend.requests for m in r.messages)
    assert all(t.reasoning == "Is it \\boxed{3}? No." for d in debates for a in d.turns for t in a)


def test_what_a_server_keeps_apart_is_a_thought_as_well(config, problems):
    said = Completion("The answer is 5.", 9, 9, "stop", reasoning="Say 3? No.")
    debate = run_debates(base_society("base", 2), problems, config, ScriptedBackend(lambda _: said))[0]
    assert debate.turns[0][0].reasoning == "Say 3? No." and debate.vote == "5"


def test_a_thought_that_never_closes_has_no_answer(config, problems):
    open_thought = ScriptedBackend(lambda request: "<think>It may be \\boxed{3}")
    debate = run_debates(base_society("base", 2), problems, config, open_thought)[0]
    assert debate.vote is None and debate.turns[0][0].response == ""


@pytest.mark.parametrize(
    "text, answer",
    [("25+7=32, 42-28=", None), ("\\boxed{12", None), ("So \\boxed{12}. To check", "12")],
)
def test_a_cut_response_answers_only_what_is_whole(config, problems, text, answer):
    cut = ScriptedBackend(lambda request: Completion(text, 9, 9, "length"))
    debate = run_debates(base_society("base", 2), problems, config, cut)[0]
    assert debate.vote == answer and all(turn.cut for turns in debate.turns for turn in turns)
    assert debate.num_cut == debate.num_calls == 6


def test_thoughts_get_tokens_of_their_own(config, problems):
    backend = ScriptedBackend(script)
    wanted = config.replace(max_tokens=40, max_thinking_tokens=100)
    run_debates(base_society("base", 2), problems, wanted, backend)
    assert {request.sampling.max_tokens for request in backend.requests} == {140}


def test_each_turn_has_its_seed_and_what_response_and_summary_took(config, problems):
    backend = ScriptedBackend(lambda request: Completion("I say 5.", 9, 4, "stop", seconds=0.5))
    for debate in run_debates(base_society("base", 3), problems, config, backend):
        assert [[cost[1:] for cost in costs] for costs in debate.costs] == [
            [(9, 4, 0.5), (18, 8, 1.0)]
        ] * 3
        assert sum(cost.seconds for costs in debate.costs for cost in costs) == debate.seconds == 4.5
        for agent, costs in enumerate(debate.costs):
            for number, cost in enumerate(costs):
                (asked,) = (r for r in backend.requests if r.seed == cost.seed)
                assert list(asked.messages) == debate.conversation(agent)[: 2 * number + 1]


def test_debates_survive_json(config, problems):
    debates = run_debates(base_society("base", 3), problems, config, ScriptedBackend(script))
    assert [Debate.from_dict(json.loads(json.dumps(d.to_dict()))) for d in debates] == debates


def test_html_escapes_what_models_wrote(config, problems):
    nasty = ScriptedBackend(lambda request: "<script>alert(1)</script> \\boxed{1}")
    shown = html(run_debates(base_society("base", 2), problems, config, nasty)[0])
    assert "<script>" not in shown and "&lt;script&gt;" in shown


def test_a_script_that_runs_out(config, problems):
    with pytest.raises(BackendError, match="ran out of answers"):
        run_debates(base_society("base", 3), problems, config, ScriptedBackend(["a", "b", "c"]))


def test_a_society_needs_a_critic_for_every_generator():
    society = base_society("base", 3)
    with pytest.raises(ValueError, match="as many critic"):
        Society(society.generators, society.critics[:2], society.summarizer)
