"""Debates to look at: one whose every text attacks the page, and as many ordinary ones as wanted.

Imported by the tests and by the notebooks that they open. Knows nothing of browsers.
"""

import random

from maft_lib import load_problems
from maft_lib.debate import Debate, Turn, majority_vote
from maft_lib.tasks.problem import Problem, problem_id

# Whatever of this is run as code leaves its mark on the page's window.
CODE = "window.attacked=(window.attacked||0)+1"
ATTACKS = {
    "script": f"<script>{CODE}</script>",
    "image": f'<img src="x" onerror="{CODE}">',
    "drawing": f'<svg onload="{CODE}"><a href="javascript:{CODE}"><text>x</text></a></svg>',
    "frame": '<iframe srcdoc="<script>parent.attacked=1</script>"></iframe>',
    "broken": "</div></td></tr></table></details></span>"
    "<style>*{display:none!important}</style><!-- <b",
    "attribute": f'"\' autofocus onfocus="{CODE}" onmouseover="{CODE}" x="',
    "formula": f"$x^{{\\text{{<img src=x onerror={CODE}>}}}}$",
    "link": f"$\\href{{javascript:{CODE}}}{{y}}$",
    "escaped": "&lt;script&gt; stays &amp;lt;script&amp;gt;",
    "markdown": f"[link](javascript:{CODE}) ![image](x) `code` <!-- -->",
}
EVERYTHING = "\n".join(ATTACKS.values())


def hostile_debate() -> Debate:
    """A debate of three agents and two rounds that attacks with every text there is."""
    question = f"What is 1+1? {EVERYTHING}"
    problem = Problem(
        problem_id(question),
        "mini_math",
        question,
        ATTACKS["image"],
        level=3,
        subject=ATTACKS["attribute"],
        source=ATTACKS["script"],
    )
    answers = (ATTACKS["script"], ATTACKS["image"], ATTACKS["broken"])
    turns = tuple(
        tuple(
            Turn(question, EVERYTHING if m else None, f"Agent {n}: {EVERYTHING}", answers[(n + m) % 3])
            for m in range(2)
        )
        for n in range(3)
    )
    return Debate(problem, turns, ATTACKS["drawing"], 10, 20, 6)


def ordinary_debates(number: int, seed: int = 0, right: float = 0.5) -> list[Debate]:
    """Debates of three agents in two rounds on three tasks; critics are right more often."""
    rng = random.Random(seed)
    tasks = ("arithmetic", "mini_gsm", "mini_math")
    shares = (number - 2 * (number // 4), number // 4, number // 4)  # mini_math has some 300
    problems = [p for task, share in zip(tasks, shares) for p in load_problems(task, num=share)]
    return [_ordinary(problem, rng, right) for problem in problems]


def _ordinary(problem: Problem, rng: random.Random, right: float) -> Debate:
    def turn(m: int) -> Turn:
        answer = problem.answer if rng.random() < right + 0.2 * m else str(rng.randint(0, 9))
        summary = f"The others disagree whether it is ${answer}$." if m else None
        response = f"First I look at it.\nThen $1+1=2$, so the answer is \\boxed{{{answer}}}."
        return Turn(problem.question, summary, response, answer)

    turns = tuple((turn(0), turn(1)) for _ in range(3))
    vote = majority_vote([agent[1].answer for agent in turns], problem.task, 0)
    return Debate(problem, turns, vote, 300, 150, 9)
