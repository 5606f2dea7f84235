"""The methods of the paper and its baselines, as recipes on the parts of a `Study`.

Each recipe is one method: which agents debate, what they learn from, how their answers are picked.
All start from the base model and are evaluated after every iteration of finetuning. A new method is a
recipe here with `@method` above it, and its test.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from maft_lib.config import Config, ConfigError, check_name
from maft_lib.debate import Debate
from maft_lib.metrics import first_answer
from maft_lib.seeds import derive_seed
from maft_lib.society import Society
from maft_lib.training.data import final_responses, portion, right_responses, single_agent_data

if TYPE_CHECKING:
    from maft_lib.study import Study

Recipe = Callable[["Study"], None]


@dataclass(frozen=True)
class Method:
    """A method: its name and recipe, how tables and figures name and draw it, whether it finetunes."""

    name: str
    recipe: Recipe
    label: str
    color: str
    marker: str
    linestyle: str = "-"
    learns: bool = True


METHODS: dict[str, Method] = {}  # by name, in the order of tables
LABELS: dict[str, str] = {}  # of methods, by name
TABLE_1 = tuple(Config.of({}).methods)  # its rows


def method(
    label: str, color: str, marker: str, linestyle: str = "-", learns: bool = True
) -> Callable[[Recipe], Recipe]:
    """Declares the recipe below it as a method, with its label and look in tables and figures."""

    def declare(recipe: Recipe) -> Recipe:
        name = recipe.__name__
        LABELS[name] = label
        METHODS[name] = Method(name, recipe, label, color, marker, linestyle, learns)
        return recipe

    return declare


def name_of(given: str | Recipe) -> str:
    """The name of a method; a recipe that was not declared becomes a method with a plain look.

    Raises `ConfigError` for an unknown name, and for a recipe with the name of another method.
    """
    if not callable(given):
        check_name("method", given, METHODS)
        return given
    name = given.__name__
    if name in METHODS and METHODS[name].recipe.__module__ != given.__module__:
        raise ConfigError(f"{name} is a method already: give your recipe another name.")
    if name not in METHODS or METHODS[name].recipe is not given:  # a cell that was run again
        method(name.replace("_", " "), "#000000", "o")(given)
    return name


@method("Base", "#8C8C8C", "D", learns=False)
def base(study: Study) -> None:
    """Base: one model answers once (Section 3.2)."""
    study.evaluate(study.base_society(num_agents=1), pick=first_answer, num_rounds=1)


@method("Majority", "#56B4E9", "^", learns=False)
def majority(study: Study) -> None:
    """Majority: N samples of one model, answered by their majority vote (Section 3.2)."""
    study.evaluate(study.base_society(), num_rounds=1)


@method("Debate", "#009E73", "v", learns=False)
def debate(study: Study) -> None:
    """Debate: N agents that share one model debate for M rounds (Du et al., 2023)."""
    study.evaluate(study.base_society())


@method("STaR", "#E69F00", "*", "-.")
def star(study: Study) -> None:
    """STaR (Zelikman et al., 2022; Section 3.2): one model learns from its right answers.

    Right by the *ground truth*. A problem answered wrong is asked again with the answer as a hint, and
    a right second try is learned from as if it had been the first: the hint is not kept. Each round
    starts from the base model, until the loss saturates: until a round no longer lowers the mean loss
    of the last epoch by the share `star_tolerance`.
    """
    start = learner = study.base_society(num_agents=1)
    study.evaluate(start, pick=first_answer, num_rounds=1)
    loss = math.inf
    for iteration in range(1, study.config.star_max_rounds + 1):
        debates = study.learn(learner, iteration, num_rounds=1)
        examples = right_responses(debates) + study.second_tries(learner, debates, iteration)
        study.remember(examples)
        (model,) = study.finetune([(start.generators[0], examples)], iteration)
        learner = study.base_society(model, num_agents=1)
        study.evaluate(learner, iteration, first_answer, num_rounds=1)
        previous, loss = loss, study.final_loss(model)
        if not loss < (1 - study.config.star_tolerance) * previous:
            break


@method("Majority FT", "#CC79A7", "P", "-.")
def majority_ft(study: Study) -> None:
    """Majority FT (Section 3.2): one model trained on all samples that match their majority vote.

    Its answer is the majority vote of N samples.
    """
    _one_model(study, num_rounds=1)


@method("Single-agent FT", "#D55E00", "s", "--")
def single_agent_ft(study: Study) -> None:
    """Single-agent FT (Section 2.2): one model trained on final responses that match the vote.

    The finetuned model is then used as every agent, and generates the next iteration's data.
    """
    _one_model(study)


@method("Single-agent FT w/o debate", "#D55E00", "X", ":")
def single_agent_ft_wo_debate(study: Study) -> None:
    """Single-agent FT w/o debate (Section 4.1): trained on debates, but answers directly, once."""
    _one_model(study, directly=True)


@method("Single-agent FT, temperature 2", "#882255", "^", ":")
def single_agent_ft_hot(study: Study) -> None:
    """Single-agent FT with all responses drawn at temperature 2, at evaluation too (Appendix E.1)."""
    study.change(temperature=2.0)
    _one_model(study)


@method("Single-agent FT, data at temperature 2", "#882255", "v", "-.")
def single_agent_ft_hot_data(study: Study) -> None:
    """Single-agent FT with training data alone drawn at temperature 2: Appendix E.1 does not say."""
    _one_model(study, temperature=2.0)


def _one_model(
    study: Study,
    num_rounds: int | None = None,
    directly: bool = False,
    parts: int = 1,
    **learning: Any,
) -> None:
    """One model learns from the responses of all agents that match the vote, or one of so many `parts`.

    `directly`: it answers alone. `learning` are parameters of the debates that it learns from.
    """
    rounds: dict[str, Any] = {} if num_rounds is None else {"num_rounds": num_rounds}

    def evaluate(model: str | None, iteration: int) -> None:
        if directly:
            alone = study.base_society(model, num_agents=1)
            study.evaluate(alone, iteration, first_answer, num_rounds=1)
        else:
            study.evaluate(study.base_society(model), iteration, **rounds)

    evaluate(None, 0)
    society = study.base_society()
    for iteration in range(1, study.config.num_iterations + 1):
        debates = study.learn(society, iteration, **rounds, **learning)
        examples = single_agent_data(debates, study.config.single_agent_data)
        examples = portion(examples, parts, study.config.seed)
        study.remember(examples)
        (model,) = study.finetune([(society.generators[0], examples)], iteration)
        society = study.base_society(model)
        evaluate(model, iteration)


@method("Multiagent FT (ours)", "#0072B2", "o")
def multiagent_ft(study: Study) -> None:
    """Multiagent FT (Algorithm 1): every agent is trained on what it said itself."""
    _a_society(study)


def _a_society(study: Study, **lessons: Any) -> None:
    """The society before and after each iteration; `lessons` say what its agents learn from."""
    study.evaluate(study.base_society())
    for iteration, society in study.specialise(**lessons):
        study.evaluate(society, iteration)


@method("Multiagent FT w/o summary", "#0072B2", "<", "-.")
def multiagent_ft_wo_summary(study: Study) -> None:
    """Multiagent FT w/o summary (Section 4.1): the others' responses are read as they are."""
    study.change(summarize=False)
    multiagent_ft(study)


@method("Multiagent FT w/o critic", "#0072B2", ">", "--")
def multiagent_ft_wo_critic(study: Study) -> None:
    """Multiagent FT w/o critic (Section 4.1): generation agents are trained, critics stay base."""
    _a_society(study, critics=False)


@method("Multiagent FT, LoRA", "#332288", "h")
def multiagent_ft_lora(study: Study) -> None:
    """Multiagent FT with all agents as LoRA adapters of one base model (not in the paper)."""
    study.change(lora_rank=study.config.lora_rank or 16)
    multiagent_ft(study)


@method("Cooperative (base)", "#44AA99", "d", learns=False)
def cooperative(study: Study) -> None:
    """Cooperative (Base): agents combine their responses instead of criticizing (Appendix D)."""
    study.change(cooperative=True)
    debate(study)


@method("Cooperative (FT)", "#117733", "d")
def cooperative_ft(study: Study) -> None:
    """Cooperative (FT): multiagent finetuning of agents that combine responses (Appendix D)."""
    study.change(cooperative=True)
    multiagent_ft(study)


@method("Unique ID", "#999933", "8", learns=False)
def unique_id(study: Study) -> None:
    """Unique ID (Appendix E.2): base agents that are told apart by an identity in their prompts."""
    study.change(unique_ids=True)
    debate(study)


@method("No interaction", "#AA4499", "H", "-.")
def no_interaction(study: Study) -> None:
    """The finetuned society with all first responses from one generation agent (a reviewer asked)."""
    study.evaluate(study.base_society())
    for iteration, society in study.specialise():
        study.evaluate(_one_generator(society), iteration)


def _one_generator(society: Society) -> Society:
    model = society.generators[0].model
    return replace(society, generators=tuple(replace(a, model=model) for a in society.generators))


@method("Vote at equal budget", "#000000", "^", learns=False)
def vote_equal_budget(study: Study) -> None:
    """A vote over as many samples of the base model as cost the tokens that a debate generates.

    Not in the paper: what a debate must beat to be worth its price. Tokens read are not counted,
    which favours the debate.
    """
    society = study.base_society()
    whole = study.debate(society, study.eval)
    first = study.debate(society, study.eval, num_rounds=1)
    spent, samples = (sum(d.num_completion_tokens for d in debates) for debates in (whole, first))
    num = max(1, round(len(society.generators) * spent / max(samples, 1)))
    study.evaluate(study.base_society(num_agents=num), num_rounds=1)


@method("Distilled society", "#661100", "X")
def distilled_society(study: Study) -> None:
    """One model that learns from the final responses of the finetuned society, and answers directly.

    What the paper suggests against the cost of many models (Limitations).
    """
    alone = study.base_society(num_agents=1)
    study.evaluate(alone, pick=first_answer, num_rounds=1)
    iteration, society = list(study.specialise())[-1]
    examples = final_responses(study.learn(society, iteration + 1))
    study.remember(examples)
    (model,) = study.finetune([(alone.generators[0], examples)], iteration)
    study.evaluate(study.base_society(model, num_agents=1), iteration, first_answer, num_rounds=1)


# Controls, not in the paper: each takes away one thing that could explain why a society does better

_NO_CONTROLS = tuple(METHODS)


@method("One model, first responses", "#E69F00", "s")
def pooled_first_responses(study: Study) -> None:
    """One model trained on all agents' first responses that match the vote: what generators learn."""
    study.change(single_agent_data="first")
    _one_model(study)


@method("One model, coherent responses", "#DDAA33", "d", "--")
def pooled_coherent_responses(study: Study) -> None:
    """Single-agent FT without final responses that contradict their own last step."""
    study.change(single_agent_data="coherent")
    _one_model(study)


@method("One model, conversations", "#CC6677", "s", "-.")
def pooled_conversations(study: Study) -> None:
    """One model trained on all whole conversations that end in the vote: what critics learn."""
    study.change(single_agent_data="conversations")
    _one_model(study)


@method("Single-agent FT, one agent's dose", "#D55E00", "v", ":")
def single_agent_ft_one_dose(study: Study) -> None:
    """Single-agent FT on one N-th of its data, as much as one agent of a society learns from."""
    _one_model(study, parts=study.config.num_agents)


@method("Shared society", "#009E73", "o", "--")
def shared_society(study: Study) -> None:
    """One generator and one critic trained on what all agents said: the society without independence.

    Each learns from one N-th of that data, as much as one agent of the society does.
    """
    _a_society(study, shared_parts=study.config.num_agents)


@method("Shared society, all data", "#117733", "s", "--")
def shared_society_all_data(study: Study) -> None:
    """The shared society at all data: as many tokens in all as the society, N times as many a model."""
    _a_society(study, shared_parts=1)


@method("Isolated agents", "#999933", "P", "-.")
def isolated_agents(study: Study) -> None:
    """No debate: generators learn from their responses that match the vote over first answers."""
    study.change(num_rounds=1)
    _a_society(study, critics=False)


@method("Self-correction", "#44AA99", "^", "-.")
def self_correction(study: Study) -> None:
    """Multiagent FT whose critics read about their own response only."""
    study.change(critics_read="itself")
    _a_society(study)


@method("Noise debate", "#BBBBBB", "v", "-.")
def noise_debate(study: Study) -> None:
    """Multiagent FT whose critics read what the others said about another problem."""
    study.change(critics_read="another problem")
    _a_society(study)


@method("Random labels", "#8C8C8C", "X", ":")
def random_labels(study: Study) -> None:
    """Multiagent FT on a label drawn from the different final answers, instead of their vote."""

    def relabelled(debate: Debate) -> Debate:
        said = sorted({answers[-1] for answers in debate.answers if answers[-1] is not None})
        seed = derive_seed(study.config.seed, debate.problem.id, "random label")
        return replace(debate, vote=random.Random(seed).choice(said) if said else None)

    _a_society(study, relabel=relabelled)


@method("Fixed teacher", "#332288", "D", "--")
def fixed_teacher(study: Study) -> None:
    """Multiagent FT on the votes of the base society in all iterations."""
    votes: dict[str, str | None] = {}  # of the first iteration's debates, which are the base society's

    def relabelled(debate: Debate) -> Debate:
        return replace(debate, vote=votes.setdefault(debate.problem.id, debate.vote))

    _a_society(study, relabel=relabelled)


CONTROLS = tuple(METHODS)[len(_NO_CONTROLS) :]
