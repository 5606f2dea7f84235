"""Bad records and bad files of the published data sets, and good records to make them from."""

import gzip
import json

import pandas as pd

FRAME = pd.DataFrame({"level": [1, 2]})
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


# One such row among good ones: (task, row, reason as a pattern)
RECORDS = {
    "no ####": ("gsm", {**GSM, "answer": "2"}, "no ####"),
    "words after ####": ("gsm", {**GSM, "answer": "#### two"}, "no number after ####"),
    "nothing after ####": ("gsm", {**GSM, "answer": "2 ####"}, "no number after ####"),
    "a float after ####": ("gsm", {**GSM, "answer": "#### 1e5"}, "no number after ####"),
    "other digits": ("gsm", {**GSM, "answer": "#### \u0663"}, "no number after ####"),
    "an endless number": ("gsm", {**GSM, "answer": "#### " + "9" * 5000}, "5000 characters"),
    "empty question": ("gsm", {**GSM, "question": "  "}, "'question' is empty"),
    "null question": ("gsm", {**GSM, "question": None}, "'question' is NoneType, not text"),
    "NaN for a question": ("gsm", {**GSM, "question": float("nan")}, "'question' is float"),
    "broken JSON": ("gsm", b'{"question": "What', "is broken JSON"),
    "deep JSON": ("gsm", b"[" * 100_000, "is broken JSON"),
    "two objects": ("gsm", json.dumps(GSM).encode() * 2, "is broken JSON"),
    "single quotes": ("gsm", repr(GSM).encode(), "is broken JSON"),
    "an integer of 5000 digits": ("gsm", b'{"answer": ' + b"9" * 5000 + b"}", "is broken JSON"),
    "null characters": ("gsm", b"\0" * 64, "is broken JSON"),
    "a field twice": ("gsm", b'{"question": "A?", "answer": "#### 1", "answer": "#### 2"}', "twice"),
    "wrong encoding": ("gsm", '{"question": "é"}'.encode("latin-1"), "is not UTF-8"),
    "half a character": ("gsm", b'{"question": "\\ud800", "answer": "#### 1"}', "surrogate"),
    "no object": ("gsm", b"[1, 2]", "is no JSON object"),
    "null": ("gsm", b"null", "is no JSON object"),
    "no such field": ("gsm", {"question": "Q?"}, "has no field 'answer'"),
    "fields of another set": ("gsm", MATH, "has no field 'question'"),
    "wrong type": ("gsm", {**GSM, "question": 3}, "'question' is int, not text"),
    "nested question": ("gsm", {**GSM, "question": {"text": "Q?"}}, "'question' is dict, not text"),
    "no box": ("math", {**MATH, "solution": "It is 4."}, r"no \\boxed"),
    "unfinished box": ("math", {**MATH, "solution": r"It is \boxed{4."}, r"no \\boxed"),
    "empty box": ("math", {**MATH, "solution": r"It is \boxed{}."}, r"empty \\boxed"),
    "an endless box": ("math", {**MATH, "solution": r"\boxed{" + "x+" * 300 + "1}"}, "601 characters"),
    "no such level": ("math", {**MATH, "level": "Level 7"}, "'Level 7'"),
    "level as a number": ("math", {**MATH, "level": 3}, "'level' is int, not text"),
    "no subject": ("math", {**MATH, "type": ""}, "'type' is empty"),
    "letter without option": ("mmlu", {**MMLU, "answer": "D"}, "'D', which is none of its options"),
    "index without option": ("mmlu", {**HUB_MMLU, "answer": 3}, "3, which is none of its options"),
    "negative index": ("mmlu", {**HUB_MMLU, "answer": -1}, "-1, which is none of its options"),
    "answer in words": ("mmlu", {**MMLU, "answer": "both"}, "neither a letter"),
    "endless answer": ("mmlu", {**MMLU, "answer": "both " * 2000}, "both both.*neither a letter"),
    "NaN for an answer": ("mmlu", {**MMLU, "answer": float("nan")}, "nan, neither a letter"),
    "no answer": ("mmlu", {**MMLU, "answer": None}, "None, neither a letter"),
    "true is no index": ("mmlu", {**HUB_MMLU, "answer": True}, "neither a letter"),
    "no options": ("mmlu", {**MMLU, "options": []}, "has 0 options"),
    "one option": ("mmlu", {**MMLU, "options": ["x"]}, "has 1 options"),
    "thirty options": ("mmlu", {**MMLU, "options": ["x"] * 30}, "has 30 options"),
    "options as text": ("mmlu", {**MMLU, "options": "xyz"}, "no list of options"),
    "options by letter": ("mmlu", {**MMLU, "options": {"A": "x", "B": "y"}}, "no list of options"),
    "empty option": ("mmlu", {**MMLU, "options": ["x", "", "z"]}, "'option B' is empty"),
    "null option": ("mmlu", {**MMLU, "options": ["x", None]}, "'option B' is NoneType"),
    "number as an option": ("mmlu", {**MMLU, "options": ["x", 5]}, "'option B' is int"),
}

GOOD = lines(numbered("gsm", 9))
# (task, files of the folder, words); None stands for a folder of that name, a path for a link
FILES = {
    "empty": ("gsm", {"gsm8k_test.jsonl": b""}, ["holds no problem of gsm", "right file?"]),
    "blank lines": ("gsm", {"gsm8k_test.jsonl": b"\n\r\n\n"}, ["holds no problem of gsm"]),
    "a BOM alone": ("gsm", {"gsm8k_test.jsonl": b"\xef\xbb\xbf"}, ["holds no problem of gsm"]),
    "missing": ("gsm", {}, ["gsm needs gsm8k_test.jsonl", "there is none in"]),
    "missing, of two names": (
        "mmlu",
        {},
        ["mmlu needs mmlu_test.jsonl or mmlu_stem_test.jsonl", "there is none in"],
    ),
    "of another set": ("math", {"gsm8k_test.jsonl": GOOD}, ["math needs math_test.jsonl"]),
    "another set's records": ("gsm", {"gsm8k_test.jsonl": lines([MATH])}, ["no field 'question'"]),
    "still packed": ("gsm", {"gsm8k_test.jsonl.gz": gzip.compress(GOOD)}, ["needs gsm8k_test.jsonl"]),
    "packed": ("gsm", {"gsm8k_test.jsonl": gzip.compress(GOOD)}, ["is a gzip file", "unpack"]),
    "a zip": ("gsm", {"gsm8k_test.jsonl": b"PK\x03\x04" + GOOD}, ["is a zip file", "unpack"]),
    "Parquet": ("mmlu", {"mmlu_test.jsonl": b"PAR1" + GOOD}, ["is a Parquet file", "convert"]),
    "UTF-16": (
        "gsm",
        {"gsm8k_test.jsonl": GOOD.decode().encode("utf-16")},
        ["gsm8k_test.jsonl:1 is not UTF-8 text", "'skip'"],
    ),
    "cut short": ("gsm", {"gsm8k_test.jsonl": GOOD[:-20]}, ["1 of 9", "jsonl:9 is broken JSON"]),
    "one JSON list": (
        "gsm",
        {"gsm8k_test.jsonl": json.dumps(numbered("gsm", 9)).encode()},
        ["1 of 1 records", "is no JSON object"],
    ),
    "printed prettily": (
        "gsm",
        {"gsm8k_test.jsonl": json.dumps(GSM, indent=1).encode()},
        ["4 of 4 records", "jsonl:1 is broken JSON"],
    ),
    "old line ends": ("gsm", {"gsm8k_test.jsonl": GOOD.replace(b"\n", b"\r")}, ["is broken JSON"]),
    "CSV": ("gsm", {"gsm8k_test.jsonl": b"question,answer\n1+1?,2\n"}, ["2 of 2 records are bad"]),
    "HTML": ("gsm", {"gsm8k_test.jsonl": b"<html>404</html>\n"}, ["1 of 1 records are bad"]),
    "a pointer of Git LFS": (
        "gsm",
        {"gsm8k_test.jsonl": b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"},
        ["3 of 3 records are bad"],
    ),
    "a question with two answers": (
        "gsm",
        {"gsm8k_test.jsonl": lines([GSM, {**GSM, "answer": "#### 3"}])},
        ["repeats the question of record 1 with another answer"],
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
    "too few": ("gsm", {"gsm8k_test.jsonl": GOOD}, ["only 9 different eval problems", "Ask for fewer"]),
}

# arguments of `load_problems`
REQUESTS = {
    "unknown task": ({"task": "algebra"}, ["unknown task 'algebra'"]),
    "no task": ({"task": None}, ["a task is a name", "None"]),
    "unknown split": ({"task": "arithmetic", "split": "test"}, ["unknown split 'test'"]),
    "no seed": ({"task": "arithmetic", "seed": None}, ["seed is None", "a whole number"]),
    "a seed in words": ({"task": "arithmetic", "seed": "a"}, ["seed is 'a'", "a whole number"]),
    "a level that is True": ({"task": "mini_math", "levels": [True]}, ["[True]", "levels, 1-5"]),
    "a folder that is a number": ({"task": "gsm", "data_dir": 5}, ["data_dir is 5", "a folder"]),
    "far more than there are": (
        {"task": "mini_math", "levels": [1], "num": 1_000_000},
        ["has only about", "Ask for fewer"],
    ),
    "a frame for a task": ({"task": FRAME}, ["a task is a name"]),
    "a frame for a split": ({"task": "gsm", "split": FRAME}, ["unknown split", "train, eval"]),
    "a frame for a word": (
        {"task": "gsm", "on_bad_records": FRAME},
        ["unknown on_bad_records", "refuse, skip"],
    ),
    "frames for levels": ({"task": "math", "levels": [FRAME]}, ["do not fit math", "1-5"]),
    "levels of no task": (
        {"task": "arithmetic", "levels": [1]},
        ["only math and mini_math have levels"],
    ),
    "no such level": ({"task": "mini_math", "levels": [9]}, ["[9]", "levels, 1-5"]),
    "levels of another task": ({"task": "gsm", "levels": [1]}, ["do not fit gsm"]),
    "a misspelt alias": ({"task": "gms8k"}, ["did you mean 'gsm8k'"]),
    "more of a level than there are": (
        {"task": "mini_math", "levels": [3], "num": 500},
        ["has only about", "Ask for fewer"],
    ),
    "files of a drawn task": (
        {"task": "reasoning_gym:chain_sum", "data_dir": "/data"},
        ["leave data_dir out"],
    ),
    "no levels": ({"task": "mini_math", "levels": []}, ["levels is []", "leave it out"]),
    "a level alone": ({"task": "mini_math", "levels": 3}, ["levels is 3", "a list"]),
    "files of a generated task": ({"task": "arithmetic", "data_dir": "/data"}, ["leave data_dir out"]),
    "more than there are": (
        {"task": "arithmetic", "max_operand": 2, "num": 50},
        ["has only about", "Ask for fewer", "max_operand"],
    ),
    "none": ({"task": "mini_gsm", "num": 0}, ["num is 0", "at least 1"]),
    "less than none": ({"task": "mini_gsm", "num": -5}, ["num is -5", "at least 1"]),
    "a number as text": ({"task": "mini_gsm", "num": "5"}, ["num is '5'", "whole number"]),
    "no operands": ({"task": "arithmetic", "max_operand": 0}, ["max_operand is 0", "at least 2"]),
    "unknown policy": ({"task": "arithmetic", "on_bad_records": "ignore"}, ["on_bad_records 'ignore'"]),
    "no such folder": ({"task": "gsm", "data_dir": "/nowhere/data"}, ["/nowhere/data is not a folder"]),
    "an empty folder name": ({"task": "gsm", "data_dir": ""}, ["data_dir", "is not a folder"]),
    "a file for a folder": ({"task": "gsm", "data_dir": __file__}, ["data_dir", "is not a folder"]),
    "no such home": ({"task": "gsm", "data_dir": "~nobody-here/data"}, ["is not a folder"]),
    "an endless folder name": ({"task": "gsm", "data_dir": "x" * 5000}, ["is not a folder"]),
    "an unknown dataset": (
        {"task": "reasoning_gym:gsm_symbolix"},
        ["unknown dataset", "'reasoning_gym:gsm_symbolic'"],
    ),
    "no dataset": ({"task": "reasoning_gym:"}, ["unknown dataset reasoning_gym:"]),
}
