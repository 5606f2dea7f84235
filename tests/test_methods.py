"""Every method on the scripted backend: which requests it makes, in which order, what it trains on.

Three agents, two rounds, one iteration, two problems a split; the numbers below were worked out by
hand. On the first problem all is well: the vote is the truth. On the second the agents agree on a wrong
answer, so whoever looks at the ground truth is found out.
"""

import re
from collections import Counter
from itertools import groupby

import pytest

from maft_lib import study
from maft_lib.debate import Debate, Turn, contradicts_itself
from maft_lib.methods import CONTROLS, METHODS, TABLE_1
from maft_lib.run import run_study
from maft_lib.study import problems
from maft_lib.training.data import single_agent_data
from tests.conftest import problem
from tests.scripted import ScriptedBackend

WRONG, OFF = 5, 1  # what agents agree on in the second problem; what nobody else says
# said[problem][agent][round], as what is added to the truth
SAID = [
    [(0, 0), (OFF, 0), (0, OFF)],
    [(OFF, WRONG), (WRONG, WRONG), (WRONG, WRONG)],
]
KINDS = {
    "These are the responses": "summary",
    "A summary of the responses": "critic",
    "The responses of the other agents": "critic without summary",
}


def kind_of(request):
    """What a request asks, and which agent its prompt names."""
    asked = request.messages[-1]["content"]
    named = re.match(r"Agent ID: (\w+) .*\n", asked)
    asked = asked[named.end() :] if named else asked
    kind = next((kind for start, kind in KINDS.items() if asked.startswith(start)), "answer")
    kind = "hint" if "Hint: the answer is" in asked else kind
    kind = "cooperative" if "by combining your response" in asked else kind
    return f"{kind} {named[1]}" if named else kind


class Society:
    """Scripted agents and a trainer that only writes down what it is asked."""

    def __init__(self, config, monkeypatch):
        self.truths = {
            p.question: (number, int(p.answer))
            for split in ("train", "eval")
            for number, p in enumerate(problems("arithmetic", split, config))
        }
        self.jobs, self.seen = [], Counter()
        self.backend = ScriptedBackend(self.script)
        monkeypatch.setattr("maft_lib.study.finetune_all", self.finetune_all)
        log = {"num_tokens": 100, "seconds": 1.0, "settings": {"num_train_epochs": 1}}
        losses = [2.0, 1.0, 0.995, 0.9]
        monkeypatch.setattr(
            "maft_lib.study.training_log", lambda model: {**log, "losses": [losses[len(self.jobs) - 1]]}
        )

    def script(self, request):
        kind = kind_of(request).split(" ")[0]
        asked = request.messages[-1]["content"]
        if kind == "summary":
            return "a summary"
        question = re.search(r"What is the result of \S+\?", asked)[0]
        number, truth = self.truths[question]
        if kind == "hint":
            return f"with a hint \\boxed{{{truth}}}"
        round_ = 0 if kind == "answer" else 1
        key = (question, round_, len(self.jobs))
        agent = self.seen[key] % 3
        self.seen[key] += 1
        return (
            f"agent {agent + 1}, round {round_ + 1}: \\boxed{{{truth + SAID[number][agent][round_]}}}"
        )

    def finetune_all(self, jobs, config):
        self.jobs.append([(agent.name, agent.model, list(examples)) for agent, examples in jobs])
        return [
            f"{agent.name}'" if examples else agent.model
            for agent, examples in jobs
        ]  # fmt: skip

    def requests(self, base):
        """(model, kind, how often in a row) of all requests in their order."""
        short = [(r.model.replace(base, "base"), kind_of(r)) for r in self.backend.requests]
        return [(*key, len(list(group))) for key, group in groupby(short)]

    def trained(self):
        """Per call of the trainer: what each agent learned from, as (problem, last response)."""
        return [
            {
                name: [
                    (
                        self.truths[e.messages[0]["content"].splitlines()[0]][0],
                        e.messages[-1]["content"][:16],
                    )
                    for e in examples
                ]
                for name, _, examples in jobs
            }
            for jobs in self.jobs
        ]


DEBATE = [("base", "answer", 6), ("base", "summary", 6), ("base", "critic", 6)]
WITHOUT_SUMMARY = [("base", "answer", 6), ("base", "critic without summary", 6)]
COOPERATIVE = [("base", "answer", 6), ("base", "summary", 6), ("base", "cooperative", 6)]
ONE = "generation-1'"  # the one model of single-agent methods
GENERATORS = [(f"generation-{n}'", "answer", 2) for n in (1, 2, 3)]
# Critic 3 has no conversation that began wrong, so it has no mixture to learn from and stays base.
CRITICS = ["critic-1'", "critic-2'", "base"]


def finetuned(critic="critic", summary=True, critics=CRITICS):
    """The debate of the finetuned society: its critics follow its own generation agents."""
    summaries = [("base", "summary", 6)] if summary else []
    turns = [(model, critic, 2) for model in critics]
    return [*GENERATORS, *summaries, *([("base", critic, 6)] if set(critics) == {"base"} else turns)]


IDENTIFIED = [
    *[("base", f"answer GEN{n}", 2) for n in (1, 2, 3)],
    ("base", "summary", 6),
    *[("base", f"critic CRIT{n}", 2) for n in (1, 2, 3)],
]
REQUESTS = {
    "base": [("base", "answer", 2)],
    "majority": [("base", "answer", 6)],
    "debate": DEBATE,
    # the debate, its first round again, then as many samples as its tokens pay for
    "vote_equal_budget": [*DEBATE[:2], ("base", "critic", 6), ("base", "answer", 6 + 14)],
    # base on eval; round 1 on train, one hint; evaluation; rounds 2 and 3, which saturates
    "star": [
        ("base", "answer", 4),
        ("base", "hint", 1),
        *[(ONE, "answer", 4), (ONE, "hint", 1)] * 2,
        (ONE, "answer", 2),
    ],
    "majority_ft": [("base", "answer", 12), (ONE, "answer", 6)],
    "single_agent_ft": [
        *DEBATE * 2,
        (ONE, "answer", 6),
        ("base", "summary", 6),
        (ONE, "critic", 6),
    ],
    "single_agent_ft_wo_debate": [
        ("base", "answer", 8),
        *DEBATE[1:],
        (ONE, "answer", 2),
    ],
    "multiagent_ft": [*DEBATE * 2, *finetuned()],
    "multiagent_ft_wo_summary": [
        *WITHOUT_SUMMARY * 2,
        *finetuned("critic without summary", summary=False),
    ],
    "multiagent_ft_wo_critic": [*DEBATE * 2, *finetuned(critics=["base"] * 3)],
    "cooperative": COOPERATIVE,
    "cooperative_ft": [*COOPERATIVE * 2, *finetuned("cooperative")],
    "unique_id": IDENTIFIED,
    "no_interaction": [
        *DEBATE * 2,
        ("generation-1'", "answer", 6),
        *finetuned()[3:],
    ],
    "distilled_society": [
        ("base", "answer", 8),
        *DEBATE[1:],
        *finetuned(),
        (ONE, "answer", 2),
    ],
}
REQUESTS["multiagent_ft_lora"] = REQUESTS["multiagent_ft"]
for _name in ("single_agent_ft_hot", "single_agent_ft_hot_data"):
    REQUESTS[_name] = REQUESTS["single_agent_ft"]
for _name in ("pooled_first_responses", "pooled_coherent_responses", "pooled_conversations"):
    REQUESTS[_name] = REQUESTS["single_agent_ft"]
REQUESTS["single_agent_ft_one_dose"] = REQUESTS["single_agent_ft"]
for _name in ("shared_society", "shared_society_all_data"):
    REQUESTS[_name] = [
        *DEBATE * 2,
        (ONE, "answer", 6),
        ("base", "summary", 6),
        ("critic-1'", "critic", 6),
    ]
REQUESTS["isolated_agents"] = [("base", "answer", 12), *GENERATORS]
for _name in ("self_correction", "noise_debate", "fixed_teacher"):
    REQUESTS[_name] = REQUESTS["multiagent_ft"]

FINAL = {  # final responses that match the vote
    "generation-1": [
        (0, "agent 1, round 2"),
        (0, "agent 2, round 2"),
        (1, "agent 1, round 2"),
        (1, "agent 2, round 2"),
        (1, "agent 3, round 2"),
    ]
}
OWN = {  # D^G of each agent, then D^C: as many corrected as kept conversations
    "generation-1": [(0, "agent 1, round 1")],
    "generation-2": [(1, "agent 2, round 1")],
    "generation-3": [(0, "agent 3, round 1"), (1, "agent 3, round 1")],
    "critic-1": [(1, "agent 1, round 2"), (0, "agent 1, round 2")],
    "critic-2": [(0, "agent 2, round 2"), (1, "agent 2, round 2")],
    "critic-3": [],
}
SAMPLES = {  # first responses that match the vote over first responses
    "generation-1": [
        (0, "agent 1, round 1"),
        (0, "agent 3, round 1"),
        (1, "agent 2, round 1"),
        (1, "agent 3, round 1"),
    ]
}
RIGHT = {"generation-1": [(0, "agent 1, round 1"), (1, "with a hint \\box")]}
TRAINED = {
    "multiagent_ft_lora": [OWN],
    "star": [RIGHT] * 3,
    "majority_ft": [SAMPLES],
    "single_agent_ft": [FINAL],
    "single_agent_ft_wo_debate": [FINAL],
    "single_agent_ft_hot": [FINAL],
    "single_agent_ft_hot_data": [FINAL],
    "multiagent_ft": [OWN],
    "multiagent_ft_wo_summary": [OWN],
    "multiagent_ft_wo_critic": [{k: v for k, v in OWN.items() if k.startswith("generation")}],
    "cooperative_ft": [OWN],
    "no_interaction": [OWN],
    "distilled_society": [OWN, FINAL],
    "pooled_first_responses": [SAMPLES],  # here the vote over first responses is the final one
    "pooled_coherent_responses": [FINAL],  # no response has a step that it could contradict
    "pooled_conversations": [
        FINAL
    ],  # by the last response; `test_what_one_model_learns` sees them whole
    "shared_society_all_data": [
        {
            "generation-1": OWN["generation-1"] + OWN["generation-2"] + OWN["generation-3"],
            "critic-1": OWN["critic-1"] + OWN["critic-2"],
        }
    ],
    "isolated_agents": [{k: v for k, v in OWN.items() if k.startswith("generation")}],
    "self_correction": [OWN],
    "noise_debate": [OWN],
    "fixed_teacher": [OWN],
}
DRAWN = {  # from these, so many a model
    "single_agent_ft_one_dose": (FINAL, {"generation-1": 2}),
    "shared_society": (TRAINED["shared_society_all_data"][0], {"generation-1": 1, "critic-1": 1}),
}


@pytest.fixture
def small(config):
    return config.replace(num_train=2, num_eval=2, num_iterations=1, w=0.5)


def test_every_method_is_pinned():
    assert {*REQUESTS, "random_labels"} == set(METHODS)
    assert not set(CONTROLS) & {*TABLE_1, "distilled_society"}


@pytest.mark.parametrize("method", REQUESTS)
def test_requests_and_training_data(method, small, monkeypatch):
    society = Society(small, monkeypatch)
    result = run_study(method, "arithmetic", small, society.backend, report=str)
    assert society.requests(small.base_model) == REQUESTS[method]
    if method in DRAWN:
        (trained,), (pool, sizes) = society.trained(), DRAWN[method]
        assert {name: len(examples) for name, examples in trained.items()} == sizes
        assert all(set(examples) <= set(pool[name]) for name, examples in trained.items())
    else:
        trained = [{k: sorted(v) for k, v in job.items()} for job in society.trained()]
        assert trained == [{k: sorted(v) for k, v in job.items()} for job in TRAINED.get(method, [])]
    calls = result.costs[result.costs.phase != "training"].num_calls.sum()
    if method != "vote_equal_budget":  # which looks at a debate to learn its price
        assert calls == len(society.backend.requests)
    assert result.costs.num_training_tokens.sum() == 100 * sum(
        bool(examples) for jobs in society.jobs for _, _, examples in jobs
    )


def test_who_starts_from_what(small, monkeypatch):
    """STaR starts from the base each time; the others go on from what the agents have become."""
    society = Society(small, monkeypatch)
    run_study("star", "arithmetic", small, society.backend, report=str)
    assert [model for jobs in society.jobs for _, model, _ in jobs] == [small.base_model] * 3
    for method, own in (("multiagent_ft", 3), ("single_agent_ft", 1), ("majority_ft", 1)):
        society = Society(small.replace(num_iterations=2), monkeypatch)
        run_study(method, "arithmetic", small.replace(num_iterations=2), society.backend, report=str)
        again = [(name, model) for name, model, _ in society.jobs[1] if name.startswith("generation")]
        assert again == [(f"generation-{n}", f"generation-{n}'") for n in range(1, own + 1)]


def test_each_iteration_learns_from_the_agents_of_the_one_before(small, monkeypatch):
    for method in ("multiagent_ft", "single_agent_ft"):
        society = Society(small.replace(num_iterations=2), monkeypatch)
        run_study(method, "arithmetic", small.replace(num_iterations=2), society.backend, report=str)
        answers = [r.model for r in society.backend.requests if kind_of(r) == "answer"]
        before, after = answers[:12], answers[12:]  # the base on eval and train, then all the rest
        assert set(before) == {small.base_model} and len(after) == 18
        assert all(model.startswith("generation-") for model in after)


def test_the_hint_is_asked_but_not_learned(small, monkeypatch):
    society = Society(small, monkeypatch)
    run_study("star", "arithmetic", small, society.backend, report=str)
    hinted = [r for r in society.backend.requests if kind_of(r) == "hint"]
    truth = next(str(t) for number, t in society.truths.values() if number == 1)
    assert len(hinted) == 3 and all("Hint: the answer is" in r.messages[0]["content"] for r in hinted)
    assert truth
    learned = [e.messages[0]["content"] for jobs in society.jobs for _, _, ex in jobs for e in ex]
    assert not any("Hint" in content for content in learned)


def test_summaries_tell_of_the_others_responses_of_the_round_before(small, monkeypatch):
    society = Society(small, monkeypatch)
    run_study("debate", "arithmetic", small, society.backend, report=str)
    summaries = [r.messages[-1]["content"] for r in society.backend.requests if kind_of(r) == "summary"]
    for place, asked in enumerate(summaries):
        listener = place // 2 + 1
        told = set(re.findall(r"agent (\d), round (\d)", asked))
        assert told == {(str(n), "1") for n in (1, 2, 3) if n != listener}


def test_temperature_two_and_ids_reach_the_requests(small, monkeypatch):
    society = Society(small, monkeypatch)
    run_study("single_agent_ft_hot", "arithmetic", small, society.backend, report=str)
    assert {r.sampling.temperature for r in society.backend.requests} == {2.0}
    society = Society(small, monkeypatch)
    run_study("single_agent_ft_hot_data", "arithmetic", small, society.backend, report=str)
    temperatures = [r.sampling.temperature for r in society.backend.requests]
    assert temperatures == [small.temperature] * 18 + [2.0] * 18 + [small.temperature] * 18
    society = Society(small, monkeypatch)
    run_study("unique_id", "arithmetic", small, society.backend, report=str)
    first = society.backend.requests[0].messages[0]["content"]
    assert first.startswith(
        "Agent ID: GEN1 (This is a generation agent 1 tasked with creating a solution.)\n"
    )


def test_adapters_of_one_base(small, monkeypatch):
    society, settings = Society(small, monkeypatch), []
    train = society.finetune_all
    monkeypatch.setattr(
        "maft_lib.study.finetune_all",
        lambda jobs, config: (settings.append(config.lora_rank), train(jobs, config))[1],
    )
    run_study("multiagent_ft_lora", "arithmetic", small, society.backend, report=str)
    run_study(
        "multiagent_ft_lora", "arithmetic", small.replace(lora_rank=4), society.backend, report=str
    )
    assert settings == [16, 4]


def test_what_one_model_learns(small, monkeypatch):
    """First and coherent responses answer the problem; conversations are there as they were held."""
    for method, lengths in (("pooled_first_responses", {2}), ("pooled_conversations", {4})):
        society = Society(small, monkeypatch)
        run_study(method, "arithmetic", small, society.backend, report=str)
        assert {len(e.messages) for jobs in society.jobs for *_, ex in jobs for e in ex} == lengths


def test_responses_that_contradict_themselves_are_left_out():
    def said(text, answer):
        return Turn("What is 2*3+1?", None, text, answer)

    sound, swayed = said("2*3=6, 6+1=7. It is \\boxed{7}.", "7"), said("6+1=8. So \\boxed{7}.", "7")
    silent = said("It is \\boxed{7}.", "7")
    turns = [(silent, turn) for turn in (sound, swayed, silent)]
    held = Debate(problem("What is 2*3+1?", "7"), tuple(turns), "7")
    assert [contradicts_itself(turn, "arithmetic") for turn in (sound, swayed, silent)] == [0, 1, 0]
    assert not contradicts_itself(swayed, "mini_mmlu")  # whose answers are letters
    learned = [e.messages[-1]["content"] for e in single_agent_data([held], "coherent")]
    assert learned == [sound.response, silent.response]
    assert len(single_agent_data([held], "final")) == 3


@pytest.mark.parametrize(
    "read, told",
    [("others", {(0, 2), (0, 3)}), ("itself", {(0, 1)}), ("another problem", {(1, 2), (1, 3)})],
)
def test_what_a_critic_reads_about(read, told, small, monkeypatch):
    """In the summary for agent 1 of problem 0: whose responses, to which problem."""
    society = Society(small, monkeypatch)
    config = small.replace(critics_read=read)
    run_study("debate", "arithmetic", config, society.backend, report=str)
    asked = next(r for r in society.backend.requests if kind_of(r) == "summary").messages[-1]["content"]
    answers = {
        (number, truth + SAID[number][n][0]): n
        for number, truth in society.truths.values()
        for n in range(3)
    }
    found = re.findall(r"agent (\d), round 1: \\boxed{(-?\d+)}", asked)
    assert {
        (number, int(n)) for n, value in found for number, said in answers if said == int(value)
    } >= told
    assert {int(n) for n, _ in found} == {n for _, n in told}


def test_who_summarizes(small, monkeypatch):
    for who, model in (("base", small.base_model), ("agent", "critic-1'")):
        society = Society(small, monkeypatch)
        config = small.replace(summarized_by=who)
        run_study("multiagent_ft", "arithmetic", config, society.backend, report=str)
        summaries = [r.model for r in society.backend.requests if kind_of(r) == "summary"]
        assert summaries[-6] == model and summaries[0] == small.base_model


def test_labels_that_are_not_the_vote(small, monkeypatch):
    """A random label is any of the answers that were given; a fixed one is the base society's."""
    learned = set()
    for label in range(12):
        society = Society(small, monkeypatch)
        monkeypatch.setattr("maft_lib.methods.derive_seed", lambda *_, label=label: label)
        run_study("random_labels", "arithmetic", small, society.backend, report=str)
        first = {
            name: [e for e in examples if e[0] == 0] for name, examples in society.trained()[0].items()
        }
        learned.add(
            tuple(sorted(name for name, examples in first.items() if examples and "gen" in name))
        )
    assert learned == {
        ("generation-1", "generation-3"),
        ("generation-2",),
    }  # who said the label at first

    small = small.replace(num_iterations=2)
    society = Society(small, monkeypatch)
    votes = iter(["1", "2", "3"])
    monkeypatch.setattr("maft_lib.debate.majority_vote", lambda *_: next(votes, "4"))
    seen = []
    build = study.build_finetuning_data
    monkeypatch.setattr(
        study,
        "build_finetuning_data",
        lambda d, *rest: (seen.append([x.vote for x in d]), build(d, *rest))[1],
    )
    run_study("fixed_teacher", "arithmetic", small, society.backend, report=str)
    assert seen == [["3", "4"]] * 2
