"""The measures of diversity, by hand and on distributions whose divergence is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from maft_lib.backends.scorer import Scorer
from maft_lib.config import Config
from maft_lib.metrics import diversity
from maft_lib.society import Agent, Society
from tests.conftest import debate

MODELS = ("a", "b", "c")
SOCIETY = Society(
    tuple(Agent(f"generation-{m}", "generator", f"{m} generation") for m in MODELS),
    tuple(Agent(f"critic-{m}", "critic", m) for m in MODELS),
    Agent("summarizer", "summarizer", "base"),
)


class Table:
    """A scorer that knows log-likelihoods, divergences and vectors by heart, and what it was asked."""

    def __init__(self, likelihood=None, divergence=None, vectors=None):
        self.likelihood, self.divergence, self.vectors = likelihood, divergence, vectors
        self.asked = []

    def log_likelihoods(self, models, conversations):
        self.asked += zip(models, conversations)
        return [self.likelihood(m, c[-1]["content"]) for m, c in zip(models, conversations)]

    def divergences(self, model, questions, responses):
        return [np.array([[self.divergence(a, b) for b in r] for a in r]) for r in responses]

    def embeddings(self, encoder, texts, pooling="mean"):
        return np.array([self.vectors[text] for text in texts], dtype=float)


def spoken(debate, *responses):
    """The debate with other words in the last round."""
    turns = [
        (*turns[:-1], replace(turns[-1], response=response))
        for turns, response in zip(debate.turns, responses)
    ]
    return replace(debate, turns=tuple(turns))


# Answers


def test_disagreement_is_the_share_that_is_not_the_vote():
    debates = [
        debate([["2", "2"], ["3", "2"], ["3", "4"]], vote="2"),
        debate([["5", "2"], ["5", "2"], ["5", None]], vote="2", question="Another?"),
    ]
    assert list(diversity.disagreement(debates).value) == pytest.approx([1 / 3, 1 / 3])
    # the authors' way with a single agent: the first answers and their own vote
    assert list(diversity.disagreement(debates, number=0).value) == pytest.approx([1 / 3, 0])


def test_answers_agree_under_equivalence_and_unreadable_ones_never():
    debates = [debate([["2.0"], ["2"], [None]], vote="2"), debate([[None], [None]], vote=None)]
    assert list(diversity.disagreement(debates).value) == pytest.approx([1 / 3, 1])


def test_flips_count_both_ways():
    frame = diversity.flips([debate([["2", "3"], ["3", "2"], [None, "2"], ["2", "2.0"]], vote="2")])
    matrix = pd.crosstab(frame.before, frame.after)
    assert matrix.loc["right", "wrong"] == 1 and matrix.loc["wrong", "right"] == 2
    assert matrix.loc["right", "right"] == 1


def test_following_a_majority_of_the_others():
    # agent 1 gives in to the two others, which are wrong; agent 2's others are split
    gives_in = debate([["2", "9"], ["9", "9"], ["9", "2"]], vote="9")
    frame = diversity.follows_majority([gives_in])
    assert frame[["agent", "majority", "value"]].values.tolist() == [[1, "wrong", 1.0]]
    convinced = debate([["3", "2"], ["2", "2"], ["2.0", "7"]], vote="2")
    frame = diversity.follows_majority([convinced])
    assert frame[["agent", "majority", "value"]].values.tolist() == [[1, "right", 1.0]]
    stays = debate([["2", "2"], ["9", "9"], ["9", "9"]], vote="9")
    assert diversity.follows_majority([stays]).value.tolist() == [0.0]
    half = debate([["1", "5"], ["5", "5"], [None, "5"]], vote="5")  # one of two is no majority
    assert diversity.follows_majority([half]).empty


def test_distinct_styles():
    own = debate([["2"], ["2"], ["2"]], vote="2")
    own = replace(own, problem=replace(own.problem, styles=(r"plus", r"minus")))
    assert diversity.distinct_styles([spoken(own, "plus", "minus", "plus")]).value[0] == 2 / 3
    assert diversity.distinct_styles([spoken(own, "plus", "what", "no")]).value[0] == 1 / 3
    either = [spoken(own, "plus", "minus", "plus"), spoken(own, "so", "what", "no")]
    assert np.isnan(diversity.distinct_styles(either).value[1])
    assert np.isnan(diversity.distinct_styles([debate([["2"]], vote="2")]).value[0])
    unknown = replace(own, turns=debate([["2"], ["2"], ["2"]], vote="2").turns)  # as real models write
    assert np.isnan(diversity.distinct_styles([unknown], 0).value[0])
    assert np.isnan(
        diversity.style_separation([unknown], Table(vectors={"I say \\boxed{2}.": [1]}), "any")
    )


# Likelihoods


def test_each_agent_is_held_out_in_turn():
    words = spoken(debate([["1", "1"], ["1", "1"], ["1", "1"]], vote="1"), "from a", "from b", "from c")
    nats = {"a": [-1.0, -1.0], "b": [-3.0], "c": [-0.5, -0.5, -0.5, -0.5]}
    scorer = Table(likelihood=lambda model, text: nats[model])
    frame = diversity.negative_log_likelihood([words], SOCIETY, scorer)
    assert len(frame) == 6 and not (frame.listener == frame.speaker).any()
    assert frame.groupby("listener").per_response.first().tolist() == [2.0, 3.0, 2.0]
    assert frame.groupby("listener").value.first().tolist() == [1.0, 3.0, 0.5]
    assert {(m, c[-1]["content"]) for m, c in scorer.asked} == {
        (model, f"from {other}") for model in MODELS for other in MODELS if model != other
    }


def test_what_the_held_out_agent_reads():
    words = spoken(debate([["1", "1"], ["2", "2"]], vote="1"), "last of a", "last of b")
    society = Society(SOCIETY.generators[:2], SOCIETY.critics[:2], SOCIETY.summarizer)
    for context, owner in (("speaker", 1), ("listener", 0)):
        scorer = Table(likelihood=lambda model, text: [-1.0])
        diversity.negative_log_likelihood([words], society, scorer, context=context)
        (heard,) = (c for m, c in scorer.asked if m == "a")
        assert heard[-1]["content"] == "last of b" and heard[:-1] == words.conversation(owner)[:-1]


def test_generation_agents_are_scored_on_first_responses():
    scorer = Table(likelihood=lambda model, text: [-1.0])
    words = debate([["1", "1"], ["2", "2"], ["3", "3"]], vote="1")
    diversity.negative_log_likelihood([words], SOCIETY, scorer, role="generator")
    assert {m for m, _ in scorer.asked} == {f"{m} generation" for m in MODELS}
    assert all(len(c) == 2 for _, c in scorer.asked)


def test_kl_by_own_likelihoods_finds_the_closed_form():
    """Agents that say yes with known probabilities: the mean over many responses is their KL."""
    yes = {"a": 0.9, "b": 0.5, "c": 0.2}

    def likelihood(model, text):
        return [float(np.log(yes[model] if text == "yes" else 1 - yes[model]))]

    rng = np.random.default_rng(0)
    silent = debate([["1", "1"], ["1", "1"], ["1", "1"]], vote="1")
    debates = [
        replace(
            spoken(silent, *("yes" if rng.random() < yes[m] else "no" for m in MODELS)),
            problem=replace(silent.problem, id=str(number)),
        )
        for number in range(4000)
    ]
    frame = diversity.kl_by_own_likelihoods(debates, SOCIETY, Table(likelihood=likelihood))
    for (listener, speaker), part in frame.groupby(["listener", "speaker"]):
        p, q = yes[MODELS[speaker - 1]], yes[MODELS[listener - 1]]
        closed = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        assert abs(part.value.mean() - closed) < 4 * part.value.std() / len(part) ** 0.5


def kl(p, q):
    return float((p * np.log(p / q)).sum())


def test_kl_with_one_scorer_averages_all_ordered_pairs():
    known = {"x": np.array([0.5, 0.5]), "y": np.array([0.9, 0.1]), "z": np.array([0.2, 0.8])}
    scorer = Table(divergence=lambda a, b: kl(known[a], known[b]))
    words = spoken(debate([["1"], ["1"], ["1"]], vote="1"), "x", "y", "z")
    pairs = [kl(known[a], known[b]) for a in known for b in known if a != b]
    value = diversity.kl_divergence([words], scorer, "any").value[0]
    assert value == pytest.approx(np.mean(pairs))


def test_kl_with_one_scorer_overshoots_less_the_longer_responses_are():
    """Agents that draw letters from known distributions, and a scorer that sees their frequencies."""
    agents = {"p": np.array([0.6, 0.3, 0.1]), "q": np.array([0.2, 0.3, 0.5])}
    closed = (kl(agents["p"], agents["q"]) + kl(agents["q"], agents["p"])) / 2
    rng = np.random.default_rng(0)
    silent = debate([["1"], ["1"]], vote="1")

    def frequencies(text):
        return (np.array([text.count(letter) for letter in "abc"]) + 0.5) / (len(text) + 1.5)

    def estimate(length):
        drawn = [
            spoken(silent, *("".join(rng.choice(list("abc"), length, p=p)) for p in agents.values()))
            for _ in range(300)
        ]
        scorer = Table(divergence=lambda a, b: kl(frequencies(a), frequencies(b)))
        return diversity.kl_divergence(drawn, scorer, "any").value.mean()

    short, longer, long = (estimate(length) for length in (20, 100, 3000))
    assert short > longer > closed * 0.98 and long == pytest.approx(closed, rel=0.02)


def test_kl_from_the_base_agents_is_over_all_pairs_with_one_of_them():
    known = {("x", "u"): 1.0, ("x", "v"): 2.0, ("y", "u"): 3.0, ("y", "v"): 6.0}
    scorer = Table(divergence=lambda a, b: known.get((a, b), 100.0))
    pair = debate([["1", "1"], ["1", "1"]], vote="1")
    ours, base = spoken(pair, "x", "y"), spoken(pair, "u", "v")
    assert diversity.kl_divergence([ours], scorer, "any", base=[base]).value[0] == 3.0


# Embeddings


def test_embedding_dissimilarity_of_responses_that_agree():
    scorer = Table(vectors={"east": [2, 0], "north": [0, 1], "west": [-1, 0]})
    words = spoken(debate([["1"], ["1"], ["7"]], vote="1"), "east", "north", "west")
    assert diversity.embedding_dissimilarity([words], scorer, "any").value[0] == pytest.approx(1)
    everyone = diversity.embedding_dissimilarity([words], scorer, "any", agreeing=False)
    assert everyone.value[0] == pytest.approx((1 + 2 + 1) / 3)


def test_a_problem_with_one_agreeing_response_says_nothing():
    scorer = Table(vectors={"east": [2, 0], "north": [0, 1]})
    alone = spoken(debate([["1"], ["7"]], vote="1"), "east", "north")
    both = spoken(debate([["1"], ["1"]], vote="1", question="Another?"), "east", "north")
    frame = diversity.embedding_dissimilarity([alone, both], scorer, "any")
    assert np.isnan(frame.value[0])
    nobody = debate([["3"], ["7"]], vote="1")
    assert (
        diversity.embedding_dissimilarity([nobody], Scorer(None, Config(device="cpu")), "any")
        .value.isna()
        .all()
    )
    summary = diversity.mean_over_problems(frame.assign(method="m"), ["method"])
    assert summary["mean"][0] == pytest.approx(1) and summary.problems[0] == 1
    assert np.isnan(summary.error[0])


def test_an_encoder_that_tells_styles_apart():
    vectors = {"plus 1": [1, 0], "plus 2": [1, 0.1], "minus 1": [0, 1]}
    own = debate([["2"], ["2"], ["2"]], vote="2")
    own = replace(own, problem=replace(own.problem, styles=(r"plus", r"minus")))
    words = [spoken(own, "plus 1", "plus 2", "minus 1")]
    assert diversity.style_separation(words, Table(vectors=vectors), "any") == 1.0
    confused = {"plus 1": [1, 0], "plus 2": [0, 1], "minus 1": [1, 0.1]}
    assert diversity.style_separation(words, Table(vectors=confused), "any") == 0.0


# Over a study


def test_errors_are_over_problems_and_over_seeds():
    frame = pd.DataFrame(
        {
            "problem": ["p", "p", "q", "q"],
            "value": [1.0, 3.0, 4.0, 4.0],
            "iteration": 0,
        }
    )
    one = diversity.mean_over_problems(frame, ["iteration"])
    assert one["mean"][0] == 3 and one.error[0] == pytest.approx(1 / 2**0.5) and one.problems[0] == 2
    seeds = pd.concat([frame.assign(seed=0), frame.assign(seed=1, value=frame.value + 2)])
    two = diversity.mean_over_problems(seeds, ["iteration"])
    assert two["mean"][0] == 4 and two.error[0] == pytest.approx(1.0)


@pytest.mark.pipeline
def test_every_measure_runs_over_a_real_study(config):
    import maft_lib as maft

    config = config.replace(num_train=16, num_eval=8)
    results = maft.run_studies(
        [(m, "arithmetic", config) for m in ("multiagent_ft", "single_agent_ft")], report=lambda _: None
    )
    scorer, base, first = maft.open_scorer(config), config.base_model, results[0].evaluations[0]
    measures = {
        "nll": lambda d, s: diversity.negative_log_likelihood(d, s, scorer),
        "own": lambda d, s: diversity.kl_by_own_likelihoods(d, s, scorer),
        "kl": lambda d, s: diversity.kl_divergence(d, scorer, base),
        "kl from base": lambda d, s: diversity.kl_divergence(d, scorer, base, base=first),
        "embeddings": lambda d, s: diversity.embedding_dissimilarity(d, scorer, base, agreeing=False),
        "disagreement": lambda d, s: diversity.disagreement(d),
        "styles": lambda d, s: diversity.distinct_styles(d),
    }
    found = {name: diversity.by_iteration(results, measure) for name, measure in measures.items()}
    for name, frame in found.items():
        assert len(frame) == 6 and frame["mean"].notna().all(), name
    own = found["own"].set_index(["method", "iteration"])["mean"]
    assert own["single_agent_ft"].eq(0).all() and own["multiagent_ft", 0] == 0
    assert own["multiagent_ft", 2] != 0


@pytest.mark.pipeline
def test_studies_that_were_trained_on_different_tasks_stay_apart(config):
    import maft_lib as maft

    config = config.replace(num_train=12, num_eval=6, num_iterations=1, eval_task="mini_gsm")
    studies = [("multiagent_ft", task, config) for task in ("arithmetic", "mini_math")]
    results = maft.run_studies(studies, report=lambda _: None)
    frame = diversity.by_iteration(results, lambda d, s: diversity.disagreement(d))
    assert set(frame.task) == {"mini_gsm"} and len(frame) == 4
    assert frame.groupby("trained_on").iteration.apply(list).to_dict() == {
        "arithmetic": [0, 1],
        "mini_math": [0, 1],
    }
