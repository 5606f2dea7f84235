"""The paper's claims on the model organism: python -m benchmarks.findings run|held_out STEP ... | draw

`run a:2 b:1 a:3` runs the arms of tier a for two iterations with all seeds, then those of tier b for
one, then tier a for three; what a step shares with one before comes from the store. After each arm
`frames.csv.gz`, a row per arm, seed, iteration and problem, and `iterations.csv`, all columns of each
iteration, are written to figures/organism. An arm that cannot be trained is printed and left out.
`held_out` does the same with a seed that no verdict uses, for files that begin
with `held_out_`. `draw` makes `fig01` and the tables of docs/findings.md from these files
alone. `name=value` changes a parameter of profile organism.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

import maft_lib as maft
from maft_lib.config import Config
from maft_lib.methods import CONTROLS, TABLE_1
from maft_lib.training import FinetuneError

ROOT = Path(__file__).parent.parent
FIGURES, PAGE = ROOT / "figures" / "organism", ROOT / "docs" / "findings.md"
TASKS: dict = {None: {}, "mini_gsm": {"task": "mini_gsm"}}
# It has no more different problems with these operands
TASKS["mini_math"] = {"task": "mini_math", "num_train": 300, "num_eval": 300}
ARMS = {  # name: (tier, method, changes of the profile)
    "multiagent_ft": ("a", "multiagent_ft", {}),
    "single_agent_ft": ("a", "single_agent_ft", {}),
    "pooled_first_responses": ("a", "pooled_first_responses", {}),
    "shared_society": ("a", "shared_society", {}),
    "multiagent_ft_wo_critic": ("b", "multiagent_ft_wo_critic", {}),
    "zero-shot": ("b", "multiagent_ft", {"eval_task": "mini_gsm"}),
    "unique_id": ("b", "unique_id", {}),
    "multiagent_ft_wo_summary": ("c", "multiagent_ft_wo_summary", {}),
    "single_agent_ft_hot": ("c", "single_agent_ft_hot", {}),
    "single_agent_ft_hot_data": ("c", "single_agent_ft_hot_data", {}),
    "five agents": ("c", "multiagent_ft", {"num_agents": 5}),
}
ARMS |= {
    f"{name} on {task}" if task else name: ("tables", name, TASKS[task])
    for task in TASKS
    for name in (*TABLE_1, *(() if task else ("vote_equal_budget", "single_agent_ft_wo_debate")))
    if task or name not in ARMS
}
ARMS |= {control: ("d", control, {}) for control in CONTROLS if control not in ARMS}
MANY = {  # untrained, where more problems cost no training
    "debate": ("debate", {}),
    "five agents": ("debate", {"num_agents": 5}),
    "w/o summary": ("debate", {"summarize": False}),
    "unique ids": ("unique_id", {}),
}
ARMS |= {
    f"untrained: {name}": ("e", method, {**own, "num_eval": 2000})
    for name, (method, own) in MANY.items()
}
HELD_OUT = 3  # its seed
MORE_SEEDS = {"a": [4, 5]}  # of a tier, beside those of the profile
ABLATIONS = (  # Table 2
    *("multiagent_ft", "multiagent_ft_wo_summary", "multiagent_ft_wo_critic"),
    *("single_agent_ft", "single_agent_ft_wo_debate"),
)
LAST = "last"  # the last iteration that all arms of tier a have
OURS, SINGLE = "multiagent_ft", "single_agent_ft"
POOLED, SHARED = "pooled_first_responses", "shared_society"
ONE = "One model, first responses"
# claim, what the paper says, column, (arm, iteration) that should be above, (arm, iteration) below, and
# the same pairs of controls
CLAIMS = [
    ("Multiagent FT is above Single-agent FT after one iteration",
     "58.8 against 56.8 % (Phi-3, MATH, Table 2)", "correct", (OURS, 1), (SINGLE, 1),
     {"Shared society": ((OURS, 1), (SHARED, 1)), ONE: ((OURS, 1), (POOLED, 1))}),
    ("Multiagent FT keeps improving", "58.8 to 66.0 % from iteration 1 to 5 (Phi-3, MATH, Figure 1)",
     "correct", (OURS, LAST), (OURS, 1), {ONE: ((POOLED, LAST), (POOLED, 1))}),
    ("Single-agent FT saturates after one iteration and falls", "Section 3.4, Figure 1",
     "correct", (SINGLE, 1), (SINGLE, LAST), {ONE: ((POOLED, 1), (POOLED, LAST))}),
    ("Independent agents matter: the society ends above one model on its data",
     "Section 2.3; not tested in the paper", "correct", (OURS, LAST), (SHARED, LAST),
     {"Single-agent FT": ((OURS, LAST), (SINGLE, LAST)),
      ONE: ((OURS, LAST), (POOLED, LAST))}),
    ("Diversity is preserved: disagreement (1 - consensus) stays above Single-agent FT's",
     "Figures 3 and 6", "disagreeing", (OURS, LAST), (SINGLE, LAST),
     {"the society, last against base": ((OURS, LAST), (OURS, 0)),
      "Shared society": ((OURS, LAST), (SHARED, LAST))}),
    ("Diversity is preserved: styles of reasoning among first answers",
     "Section 4.2", "styles", (OURS, LAST), (SINGLE, LAST),
     {"the society, last against base": ((OURS, LAST), (OURS, 0)),
      "Shared society": ((OURS, LAST), (SHARED, LAST))}),
    ("Diversity goes with accuracy", "positive correlation over iterations (Figure 4)",
     "correlation", (OURS, LAST), None, {}),
    ("Trained critics matter", "58.8 against 56.6 % without (Phi-3, MATH, Table 2)",
     "correct", (OURS, 1), ("multiagent_ft_wo_critic", 1), {}),
    ("A critic's round improves on the vote over first answers", "Sections 2.1 and 2.5",
     "round", (OURS, LAST), None,
     {"after one iteration": ((OURS, 1), None), "untrained": (("untrained: debate", 0), None),
      "Single-agent FT": ((SINGLE, LAST), None)}),
    ("Summaries matter", "58.8 against 55.0 % without (Phi-3, MATH, Table 2)",
     "correct", (OURS, 1), ("multiagent_ft_wo_summary", 1),
     {"untrained": (("untrained: debate", 0), ("untrained: w/o summary", 0))}),
    ("Zero-shot transfer: finetuned on arithmetic, better on mini_gsm", "MATH to GSM (Figure 5)",
     "correct", ("zero-shot", 1), ("zero-shot", 0), {}),
    ("Five agents are above three", "60.4 against 58.8 % (Phi-3, MATH, Table 4)",
     "correct", ("five agents", 1), (OURS, 1),
     {"untrained": (("untrained: five agents", 0), ("untrained: debate", 0))}),
    ("Temperature 2 does not replace it", "below Multiagent FT (Appendix E.1, Figure 10)",
     "correct", (OURS, 1), ("single_agent_ft_hot", 1),
     {"hot while data are drawn": ((OURS, 1), ("single_agent_ft_hot_data", 1))}),
    ("Unique ids do not replace it", "57.4 against 50.8 % (LLaMA-3, MATH, Table 5)",
     "correct", (OURS, 1), ("unique_id", 0),
     {"ids, untrained": (("untrained: unique ids", 0), ("untrained: debate", 0))}),
]  # fmt: skip


def run(steps, prefix="", **changes):
    """Runs the arms of the steps one after another, and writes both files after each."""
    base = maft.load_config("organism", **changes)
    done = {}
    for step in steps:
        tier, _, last = step.partition(":")
        seeds = base.seeds + ([] if prefix else MORE_SEEDS.get(tier, []))
        for arm in [name for name, (own, *_) in ARMS.items() if own == tier]:
            _, method, own = ARMS[arm]
            config = base.replace(**{"num_iterations": int(last), **own})
            try:
                results = maft.run_studies(
                    [(method, config.task, config.replace(seed=seed)) for seed in seeds]
                )
            except FinetuneError as error:
                print(f"{arm} is left out: {error}", file=sys.stderr)
                continue
            for seed, result in zip(seeds, results):
                done[arm, seed] = per_problem(result).assign(arm=arm), _columns(arm, result)
            write(*(pd.concat(part, ignore_index=True) for part in zip(*done.values())), prefix)


def per_problem(result):
    """The scores of a result with what stands behind each problem's debate."""
    parts = []
    pairs = zip(result.frame.groupby("iteration"), result.evaluations)
    for (_, frame), debates in pairs:
        behind = maft.metrics.by_round(debates, result.config.seed)
        behind["disagreeing"] = maft.diversity.disagreement(debates).value
        behind["styles"] = maft.diversity.distinct_styles(debates, 0).value
        parts.append(frame.merge(behind, on="problem"))
    frame = pd.concat(parts)
    names = ["seed", "iteration", "problem", "correct", "first_correct", "last_correct"]
    return frame[names + [c for c in frame if c in behind and c != "problem"]]


def _columns(arm, result):
    config = result.config
    sizes = {"num_train": config.num_train, "num_eval": config.num_eval}
    return maft.metrics.per_iteration(result).assign(arm=arm, **sizes)


def write(frames, columns, prefix=""):
    """Both files, the same bytes for the same numbers."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    order = ["seed", "problem", "arm", "iteration"]
    frames = frames.assign(problem=frames.problem.str[:10]).sort_values(order)
    frames = frames[order + [name for name in frames if name not in order]]
    numbers = {name: float for name in frames if name not in order}  # a vote has no second round
    text = frames.astype(numbers).round(3).to_csv(index=False, float_format="%g")
    with gzip.GzipFile(FIGURES / f"{prefix}frames.csv.gz", "wb", mtime=0) as file:
        file.write(text.encode())
    columns.round(3).to_csv(FIGURES / f"{prefix}iterations.csv", index=False)


def read(prefix=""):
    """The frame by problem, with as many iterations of tier a as all its seeds and arms have."""
    frames = pd.read_csv(FIGURES / f"{prefix}frames.csv.gz", dtype={"problem": str})
    tier = frames[frames.arm.map(lambda arm: ARMS[arm][0] == "a")]
    last = tier.groupby(["arm", "seed"]).iteration.max().min()
    return frames[frames.iteration <= last]


def findings(frames, held_out=None):
    """A row per claim: what was measured, which control explains it, the verdict, another seed."""
    found, others = measured(frames)
    again = measured(held_out)[0] if held_out is not None else [None] * len(found)
    p = maft.statistics.holm([one["p"] if one else np.nan for one in found])
    rows = []
    for (claim, paper, *_), one, other, corrected, seed in zip(CLAIMS, found, others, p, again):
        said = [f"{name}: {_interval(control)}" for name, control in other.items() if control]
        row = {"claim": claim, "paper": paper, "measured": "not run", "control": "; ".join(said) or "-"}
        row |= {"verdict": one["verdict"], "measured": _measured(one, corrected)} if one else {}
        rows.append({"verdict": "not run", **row, "held-out seed": _interval(seed) if seed else "-"})
    return pd.DataFrame(rows)[["claim", "paper", "measured", "control", "verdict", "held-out seed"]]


def measured(frames):
    """What was found for each claim, and for its controls: contrasts, None where an arm is missing."""
    last, found, others = frames.iteration.max(), [], []
    index = frames.set_index(["arm", "iteration", "seed", "problem"]).sort_index()

    def contrast(above, below, column):
        if column == "round":  # of one arm: its last vote against that over first answers
            at = (above[0], last if above[1] == LAST else above[1])
            if at not in index.index:
                return None
            return maft.statistics.contrast(index.loc[at, "vote_2"], index.loc[at, "vote_1"])
        (a, i), (b, j) = ((arm, last if n == LAST else n) for arm, n in (above, below))
        if (a, i) == (b, j) or not all(key in index.index for key in ((a, i), (b, j))):
            return None
        pair = pd.DataFrame({0: index.loc[(a, i), column], 1: index.loc[(b, j), column]})
        pair = pair.dropna()  # seeds that both arms have; the styles of a problem can be unknown
        return maft.statistics.contrast(pair[0], pair[1])

    for _, _, column, above, below, controls in CLAIMS:
        if column == "correlation":
            one = correlation(frames[frames.arm == above[0]]) if last > 1 else None
        else:
            one = contrast(above, below, column)
        found.append(one)
        others.append({name: contrast(*pair, column) for name, pair in controls.items()})
    return found, others


def _interval(found):
    digits = ".2f" if found.get("unit") else ".1f"
    low, high = (f"{found[name]:{digits}}" for name in ("low", "high"))
    return f"{found['difference']:+{digits}} [{low}, {high}]".replace("-", "\N{MINUS SIGN}")


def _measured(found, p):
    digits = "+.2f" if found.get("unit") else "+.1f"
    seeds = ", ".join(f"{value:{digits}}" for value in found["seeds"]).replace("-", "\N{MINUS SIGN}")
    text = f"{_interval(found)}; seeds {seeds}; n = {found['n']:,}"
    if not np.isnan(p):
        text += f"; p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}; smallest {found['smallest']:.1f}"
    return text


def correlation(frames, num_resamples=2000):
    """Of disagreement and accuracy over iterations, mean over seeds, with a bootstrap over problems."""
    rng, by_seed, draws = np.random.default_rng(0), [], np.zeros(num_resamples)
    for _, own in frames.groupby("seed"):
        wide = own.pivot(index="problem", columns="iteration", values=["correct", "disagreeing"])
        accuracy, disagreeing = wide["correct"].to_numpy(), wide["disagreeing"].to_numpy()
        drawn = rng.multinomial(len(wide), [1 / len(wide)] * len(wide), num_resamples)
        by_seed.append(np.corrcoef(accuracy.mean(0), disagreeing.mean(0))[0, 1])
        pairs = zip(drawn @ accuracy, drawn @ disagreeing)
        draws += [np.corrcoef(*pair)[0, 1] for pair in pairs]
    low, high = np.quantile(draws / len(by_seed), [0.025, 0.975])
    told = min(low, *by_seed) > 0 or max(high, *by_seed) < 0
    verdict = ("supported" if low > 0 else "not supported") if told else "cannot be told here"
    found = {"difference": np.mean(by_seed), "low": low, "high": high, "seeds": by_seed, "p": np.nan}
    num = frames.groupby(["seed", "problem"]).ngroups
    return found | {"n": num, "verdict": verdict, "unit": "correlation"}


def page(frames):
    """docs/findings.md with the table of these frames in it."""
    columns = pd.read_csv(FIGURES / "iterations.csv")
    held_out = read("held_out_") if (FIGURES / "held_out_frames.csv.gz").is_file() else None
    table = findings(frames, held_out).to_markdown(index=False)
    kept = ["arm", "iteration", "accuracy", "vote_1", "oracle_2", "first_answers", "labels_right"]
    kept += ["contradictory", "corrected", "spoiled", "num_updates", "num_training_tokens"]
    tier = columns[columns.arm.isin(frames.arm) & (columns.iteration <= frames.iteration.max())]
    means = tier[kept].groupby(["arm", "iteration"], sort=False).mean().reset_index()
    means["arm"] = means.arm.map(lambda name: maft.plots.LABELS.get(name, name))
    counts = {"num_updates": "updates", "num_training_tokens": "tokens trained on"}
    for name in kept[2:]:
        pattern = "{:,.0f}" if name in counts else "{:.1f}"
        means[name] = [("" if np.isnan(v) else pattern.format(v)) for v in means[name]]
    means = means.rename(columns=counts).rename(columns=lambda name: name.replace("_", " "))
    behind = means.to_markdown(index=False, disable_numparse=True)
    text = PAGE.read_text(encoding="utf-8")
    for name, new in (("table", table), ("columns", behind)):
        before, _, after = text.split(f"<!-- {name} -->\n")
        text = f"<!-- {name} -->\n".join([before, f"{new}\n\n", after])
    return text


def tables(frames):
    """Tables 1 and 2 for the profile's seeds: each method after one iteration."""
    config = maft.load_config("organism")
    untrained = ["base", "majority", "debate"]
    for name, methods, baselines, tasks in (
        ("table01", TABLE_1, untrained, [*TASKS.values()]),
        ("table02", ABLATIONS, [OURS], [{}]),
    ):
        arms = {arm: (method, own) for arm, (_, method, own) in ARMS.items() if method in methods}
        scores = pd.concat(
            frames[frames.arm == arm].assign(method=method, task=own.get("task", config.task))
            for arm, (method, own) in arms.items()
            if own in tasks
        ).assign(readable=True)
        after_one = (scores.iteration < 2) | (scores.method == "star")
        last = maft.metrics.last_iteration(scores[scores.seed.isin(config.seeds) & after_one])
        accuracies = maft.metrics.accuracy(last, pool_seeds=True)
        differences = maft.statistics.compare(last, baselines)
        marked = differences if name == "table01" else None
        columns = list(scores.task.unique())
        table = maft.tables.methods_by_task(accuracies, columns, methods, significance=marked)
        maft.tables.save_table(table, FIGURES / name, numbers=accuracies)
        claims = maft.tables.comparisons(differences)
        maft.tables.save_table(claims, FIGURES / f"{name}_differences", differences)
        paper, model = name.replace("0", "_"), config.model_name_or_path
        beside = maft.tables.beside_published(accuracies, paper, model, columns, methods)
        maft.tables.save_table(beside, FIGURES / f"{name}_published")


def draw():
    """Figure 1, diversity, Tables 1 and 2 and the page, from the committed frames."""
    frames = read()
    tables(frames)
    columns = pd.read_csv(FIGURES / "iterations.csv")
    tier = frames[frames.arm.map(lambda arm: ARMS[arm][0] == "a")]
    order = [arm for arm in ARMS if arm in set(tier.arm)]
    tier = pd.concat([tier[tier.arm == arm] for arm in order])
    scores = tier.assign(method=tier.arm, task="arithmetic")
    debate = maft.metrics.accuracy_over_seeds(scores)
    single = maft.metrics.accuracy_over_seeds(scores, "first_correct")
    figure, axes = maft.plots.panels(1, 2, 3.0, sharey=True)
    maft.plots.by_iteration(debate, axes[0])
    maft.plots.by_iteration(single, axes[1], "accuracy of a first answer (%)")
    maft.plots.legend_below(axes)
    maft.plots.letter(axes, "debate", "first answer")
    sizes = {name: int(columns[name].iloc[0]) for name in ("num_train", "num_eval")}
    seeds = [int(seed) for seed in sorted(tier.seed.unique())]
    config = Config.of({"profile": "organism", "seeds": seeds, **sizes})
    caption = (
        "Figure 1: Accuracy over iterations of finetuning. (a) Of the debate. (b) Of a first answer, "
        f"averaged over agents. {maft.plots.about(config)}"
    )
    maft.plots.save_figure(figure, FIGURES / "fig01", caption)
    figure, axes = maft.plots.panels(1, 2, 3.0)
    for ax, name, ylabel in zip(axes, ("disagreeing", "styles"), ("disagreement (%)", "styles (%)")):
        maft.plots.by_iteration(maft.metrics.accuracy_over_seeds(scores, name), ax, ylabel)
    maft.plots.legend_below(axes)
    maft.plots.letter(axes, "disagreement", "styles of reasoning")
    caption = (
        "Diversity over iterations of finetuning. (a) Share of agents whose last answer is not the "
        "vote. (b) Styles of reasoning among first answers, as a share of the agents. "
        f"{maft.plots.about(config)}"
    )
    maft.plots.save_figure(figure, FIGURES / "fig_diversity", caption)
    numbers = debate.merge(single, on=["method", "task", "iteration", "seeds"], suffixes=("", "_first"))
    numbers.to_csv(FIGURES / "fig01.csv", index=False, float_format="%.4f")
    PAGE.write_text(page(frames), encoding="utf-8")


if __name__ == "__main__":
    what, *steps = sys.argv[1:]
    pairs = [step.split("=") for step in steps if "=" in step]
    changes = {name: yaml.safe_load(value) for name, value in pairs}
    if what == "held_out":
        changes |= {"seeds": [HELD_OUT], "prefix": "held_out_"}
    draw() if what == "draw" else run([step for step in steps if ":" in step], **changes)
