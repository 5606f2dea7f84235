"""Bad records and bad files of the published data sets, and good records to make them from."""

import gzip
import json

GSM = {"question": "What is 1+1?", "answer": "1+1=<<1+1=2>>2\n#### 2"}
MATH = {
    "problem": "Is $2^2$?",
    "level": "Level 2",
    "type": "Algebra",
    "solution": r"It is $\boxed{4}$.",
}
MMLU = {"question": "Which?", "options": ["x", "y", "z"], "answer": "B", "topic": "physics", "id": 3}
HUB_MMLU = {"question": "Which?", "subject": "physics", "choices": ["x", "y", "z"], "answer": 1}
EXAMPLE = {
    "gsm": ("gsm8k_test.jsonl", GSM, "question"),
    "math": ("math_test.jsonl", MATH, "problem"),
    "mmlu": ("mmlu_test.jsonl", MMLU, "question"),
}


def write(folder, name, rows):
    """A JSON-lines file; a row may be bytes, to be written as they are."""
    (folder / name).write_bytes(lines(rows))
    return str(folder)


def lines(rows):
    """Rows as JSON lines."""
    return b"".join(
        (row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows
    )


def numbered(task, count, start=0):
    """Different good records of a task."""
    _, record, question = EXAMPLE[task]
    return [{**record, question: f"{record[question]} No. {i}"} for i in range(start, start + count)]


# One such row among good ones: (task, row, culprit as a pattern)
RECORDS = {
    "no ####": ("gsm", {**GSM, "answer": "2"}, "####"),
    "words after ####": ("gsm", {**GSM, "answer": "#### two"}, "####"),
    "a float after ####": ("gsm", {**GSM, "answer": "#### 1e5"}, "####"),
    "other digits": ("gsm", {**GSM, "answer": "#### \u0663"}, "####"),
    "an endless number": ("gsm", {**GSM, "answer": "#### " + "9" * 5000}, "300 characters"),
    "empty question": ("gsm", {**GSM, "question": "  "}, "question"),
    "null question": ("gsm", {**GSM, "question": None}, "question None"),
    "broken JSON": ("gsm", b'{"question": "What', "record"),
    "deep JSON": ("gsm", b"[" * 100_000, "record"),
    "an integer of 5000 digits": ("gsm", b'{"answer": ' + b"9" * 5000 + b"}", "record"),
    "wrong encoding": ("gsm", '{"question": "é"}'.encode("latin-1"), "record"),
    "half a character": ("gsm", b'{"question": "\\ud800", "answer": "#### 1"}', "question"),
    "no object": ("gsm", b"[1, 2]", "record"),
    "null": ("gsm", b"null", "record"),
    "no such field": ("gsm", {"question": "Q?"}, "answer"),
    "nested question": ("gsm", {**GSM, "question": {"text": "Q?"}}, "question"),
    "unfinished box": ("math", {**MATH, "solution": r"It is \boxed{4."}, r"\\boxed"),
    "empty box": ("math", {**MATH, "solution": r"It is \boxed{}."}, r"\\boxed"),
    "an endless box": ("math", {**MATH, "solution": r"\boxed{" + "x+" * 300 + "1}"}, "300 characters"),
    "no such level": ("math", {**MATH, "level": "Level 7"}, "level 'Level 7'"),
    "letter without option": ("mmlu", {**MMLU, "answer": "D"}, "answer"),
    "negative index": ("mmlu", {**HUB_MMLU, "answer": -1}, "answer"),
    "answer in words": ("mmlu", {**MMLU, "answer": "both"}, "answer 'both'"),
    "NaN for an answer": ("mmlu", {**MMLU, "answer": float("nan")}, "answer nan"),
    "true is no index": ("mmlu", {**HUB_MMLU, "answer": True}, "answer True"),
    "one option": ("mmlu", {**MMLU, "options": ["x"]}, "options"),
    "thirty options": ("mmlu", {**MMLU, "options": ["x"] * 30}, "options"),
    "options as text": ("mmlu", {**MMLU, "options": "xyz"}, "options"),
    "null option": ("mmlu", {**MMLU, "options": ["x", None]}, "options 1 None"),
}

GOOD = lines(numbered("gsm", 9))
# (task, files of the folder, words); None stands for a folder of that name, a path for a link
FILES = {
    "blank lines": ("gsm", {"gsm8k_test.jsonl": b"\n\r\n\n"}, ["holds no problem of gsm"]),
    "missing": ("gsm", {}, ["gsm needs gsm8k_test.jsonl", "has no such file"]),
    "missing, of two names": (
        "mmlu",
        {},
        ["mmlu needs mmlu_test.jsonl or mmlu_stem_test.jsonl", "has no such file"],
    ),
    "another set's records": ("gsm", {"gsm8k_test.jsonl": lines([MATH])}, ["question"]),
    "packed": ("gsm", {"gsm8k_test.jsonl": gzip.compress(GOOD)}, ["has bad records", "'skip'"]),
    "UTF-16": (
        "gsm",
        {"gsm8k_test.jsonl": GOOD.decode().encode("utf-16")},
        ["gsm8k_test.jsonl:1 ", "'skip'"],
    ),
    "cut short": ("gsm", {"gsm8k_test.jsonl": GOOD[:-20]}, ["bad records (1)", "jsonl:9 "]),
    "printed prettily": (
        "gsm",
        {"gsm8k_test.jsonl": json.dumps(GSM, indent=1).encode()},
        ["bad records (4)", "jsonl:1 "],
    ),
    "a question with two answers": (
        "gsm",
        {"gsm8k_test.jsonl": lines([GSM, {**GSM, "answer": "#### 3"}])},
        ["jsonl:2 repeats the question of gsm8k_test.jsonl:1 with another answer"],
    ),
    "a folder": ("gsm", {"gsm8k_test.jsonl": None}, ["gsm8k_test.jsonl cannot be read", "directory"]),
    "a dead link": (
        "gsm",
        {"gsm8k_test.jsonl": "gone"},
        ["gsm8k_test.jsonl cannot be read", "No such"],
    ),
    "a train split that is a folder": (
        "math",
        {"math_test.jsonl": lines(numbered("math", 40)), "math_train.jsonl": None},
        ["math_train.jsonl cannot be read"],
    ),
    "too few": ("gsm", {"gsm8k_test.jsonl": GOOD}, ["only 9 different eval problems", "ask for fewer"]),
}

# arguments of `load_problems`
REQUESTS = {
    "unknown task": ({"task": "algebra"}, ["unknown task 'algebra'"]),
    "no task": ({"task": None}, ["unknown task None"]),
    "a misspelt alias": ({"task": "gms8k"}, ["did you mean 'gsm8k'"]),
    "unknown split": ({"task": "arithmetic", "split": "test"}, ["split is 'test'"]),
    "a seed in words": ({"task": "arithmetic", "seed": "a"}, ["seed is 'a'", "integer"]),
    "a folder that is a number": ({"task": "gsm", "data_dir": 5}, ["data_dir is 5", "string"]),
    "a level that is True": ({"task": "mini_math", "levels": [True]}, ["levels is True"]),
    "no such level": ({"task": "mini_math", "levels": [9]}, ["levels is 9", "5"]),
    "no levels": ({"task": "mini_math", "levels": []}, ["levels is []"]),
    "a level alone": ({"task": "mini_math", "levels": 3}, ["levels is 3"]),
    "levels of another task": ({"task": "gsm", "levels": [1]}, ["only math and mini_math do"]),
    "more of a level than there are": (
        {"task": "mini_math", "levels": [3], "num": 500},
        ["has only", "ask for fewer"],
    ),
    "files of a drawn task": (
        {"task": "reasoning_gym:chain_sum", "data_dir": "/data"},
        ["leave data_dir out"],
    ),
    "files of a generated task": ({"task": "arithmetic", "data_dir": "/data"}, ["leave data_dir out"]),
    "none": ({"task": "mini_gsm", "num": 0}, ["num is 0", "1"]),
    "a number as text": ({"task": "mini_gsm", "num": "5"}, ["num is '5'", "integer"]),
    "no operands": ({"task": "arithmetic", "max_operand": 0}, ["max_operand is 0", "2"]),
    "unknown policy": (
        {"task": "arithmetic", "on_bad_records": "ignore"},
        ["on_bad_records is 'ignore'"],
    ),
    "no such folder": ({"task": "gsm", "data_dir": "/nowhere/data"}, ["/nowhere/data", "not a folder"]),
    "an empty folder name": ({"task": "gsm", "data_dir": ""}, ["data_dir", "is not a folder"]),
    "an endless folder name": ({"task": "gsm", "data_dir": "x" * 5000}, ["is not a folder"]),
    "an unknown dataset": (
        {"task": "reasoning_gym:gsm_symbolix"},
        ["is unknown", "'reasoning_gym:gsm_symbolic'"],
    ),
}
