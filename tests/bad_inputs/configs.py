"""Bad parameters: values, profiles, params files, and what papermill may put into a notebook."""

SURROGATE = "half \ud83d"

# `load_config("smoke", **values)`
VALUES = {
    "unknown key": ({"num_agent": 3}, ["'num_agent'", "did you mean 'num_agents'"]),
    "far-off key": ({"zzz": 3}, ["unknown parameter 'zzz'"]),
    "a word": ({"num_agents": "three"}, ["num_agents", "integer", "'three'"]),
    "digits as text": ({"num_train": "24"}, ["num_train", "integer", "'24'"]),
    "true is no number": ({"num_agents": True}, ["num_agents", "integer"]),
    "a float": ({"num_rounds": 2.0}, ["num_rounds", "integer", "2.0"]),
    "null": ({"num_train": None}, ["num_train", "integer", "None"]),
    "no number for the task": (
        {"num_eval": {"gsm": 24}},
        ["num_eval:", "has no number for 'arithmetic'"],
    ),
    "a number for no task": ({"num_eval": {"algebra": 24}}, ["unknown task 'algebra'"]),
    "a number for what no terminal prints": ({"num_eval": {"a\n\x1b[31m": 1}}, ["num_eval.a ?[31m:"]),
    "a small number for a task": (
        {"num_eval": {"arithmetic": 1}},
        ["num_eval.arithmetic:", "equal to 2"],
    ),
    "a list for a number": ({"num_eval": [24]}, ["num_eval", "integer", "[24]"]),
    "no agents": ({"num_agents": 0}, ["num_agents", "greater than or equal to 2", "0"]),
    "one agent": ({"num_agents": 1}, ["num_agents", "greater than or equal to 2"]),
    "a number of 400 digits": ({"max_tokens": 10**400}, ["max_tokens", "less than or equal"]),
    "w above 1": ({"w": 1.5}, ["w:", "less than or equal to 1", "1.5"]),
    "not a number": ({"temperature": float("nan")}, ["temperature", "finite"]),
    "a float that YAML reads as text": ({"learning_rate": "5e-7"}, ["learning_rate", "5.0e-7"]),
    "yes is no bool": ({"summarize": "yes"}, ["summarize", "boolean", "'yes'"]),
    "unknown task": ({"task": "arithmetics"}, ["'arithmetics'", "'arithmetic'"]),
    "unknown eval task": ({"eval_task": "algebra"}, ["unknown task 'algebra'", "expected one of"]),
    "a task as a number": ({"task": 5}, ["task", "string", "5"]),
    "tasks as text": ({"tasks": "arithmetic"}, ["tasks", "list", "'arithmetic'"]),
    "the same task by two names": ({"tasks": ["math", "competition_math"]}, ["tasks", "twice"]),
    "unknown method": ({"methods": ["debates"]}, ["'debates'", "'debate'"]),
    "a method twice": ({"methods": ["base", "base"]}, ["methods", "twice"]),
    "a negative seed": ({"seeds": [-1]}, ["seeds", "greater than or equal to 0"]),
    "a seed of 32 bits": ({"seed": 2**31}, ["seed", "less than 2147483648"]),
    "a thousand wrong seeds": ({"seeds": ["a"] * 1000}, ["seeds.0"]),
    "own of no notebook": ({"notebooks": {"F_agents": {}}}, ["'F_agents'", "'F_more_agents'"]),
    "own key": (
        {"notebooks": {"F_more_agents": {"num_agent": 5}}},
        ["parameter of F_more_agents", "did you mean 'num_agents'"],
    ),
    "own profile": ({"notebooks": {"F_more_agents": {"profile": "x"}}}, ["unknown parameter of F_mo"]),
    "unknown backend": ({"backend": "tgi"}, ["backend", "'vllm'", "'tgi'"]),
    "unknown device": ({"device": "gpu"}, ["device", "'cuda'", "'gpu'"]),
    "4 bits without an adapter": ({"load_in_4bit": True}, ["load_in_4bit", "lora_rank"]),
    "vLLM on Ray": ({"backend": "vllm", "executor": "ray"}, ["executor", "vllm"]),
    "no model": ({"model_name_or_path": ""}, ["model_name_or_path"]),
    "a blank model": ({"model_name_or_path": "  "}, ["model_name_or_path"]),
    "a model of two lines": ({"model_name_or_path": "a\nb"}, ["model_name_or_path", "one line"]),
    "half a surrogate pair": ({"figures_dir": SURROGATE}, ["figures_dir", "printable"]),
    "a folder as a number": ({"data_dir": 5}, ["data_dir", "string", "5"]),
}

# `load_config(profile)`
PROFILES = {
    "unknown": ("smok", ["unknown profile 'smok'", "did you mean 'smoke'"]),
    "empty": ("", ["unknown profile ''", "expected one of"]),
    "a folder": ("params", ["unknown profile 'params'"]),
    "no such file": ("nowhere.yml", ["nowhere.yml cannot be read"]),
    "a number": (5, ["unknown profile '5'"]),
}

# `load_config(path)` of a file own.yml with this text; None is a folder of that name
FILES = {
    "broken": (b"num_agents: [", ["own.yml cannot be read", "line 1"]),
    "only words": (b"num_agents 3\n", ["own.yml has no `key: value` lines"]),
    "empty": (b"", ["own.yml has no"]),
    "a key twice": (b"w: 0.1\nseed: 1\nw: 0.9\n", ["line 3", "'w' stands there twice"]),
    "an own key twice": (
        b"notebooks: {F_more_agents: {w: 0.1, w: 0.2}}\n",
        ["line 1", "'w' stands there twice"],
    ),
    "a Python object": (
        b"seed: !!python/object/apply:os.getpid []\n",
        ["cannot be read", "line 1", "constructor"],
    ),
    "a date that is none": (b"seed: 2024-13-45\n", ["cannot be read", "month"]),
    "Latin-1": ("# é\nseed: 1\n".encode("latin-1"), ["own.yml cannot be read", "utf-8"]),
    "a folder": (None, ["cannot be read"]),
    "another profile": (b"profile: other\n", ["another `profile`", "name it as the file"]),
    "a number as a key": (b"1: 2\n", ["unknown parameter 1"]),
    "a YAML bool as a key": (b"on: 2\n", ["unknown parameter True"]),
    "a nested key": (b"debate: {num_agents: 3}\n", ["unknown parameter 'debate'"]),
    "a date": (b"seed: 2024-01-02\n", ["seed", "integer", "datetime.date(2024, 1, 2)"]),
    "a comma for a point": (b"w: 0,5\n", ["w: ", "number", "'0,5'"]),
}

# `notebook_config` of the parameters cell of notebook 00, with these values injected
INJECTED = {
    "an unknown name without a value": ({"num_agentz": None}, ["'num_agentz'", "'num_agents'"]),
    "unknown name": ({"num_agentz": 5}, ["'num_agentz'", "did you mean 'num_agents'"]),
    "a parameter of another notebook": ({"retrain": True}, ["unknown parameter 'retrain'"]),
    "5e-7": ({"learning_rate": "5e-7"}, ["learning_rate", "5.0e-7"]),
    "no profile": ({"profile": "huge"}, ["unknown profile 'huge'"]),
    "an empty profile": ({"profile": ""}, ["unknown profile ''"]),
    "one seed for several": ({"seeds": 0}, ["seeds", "list", "0"]),
    "a mapping": ({"task": {"name": "gsm"}}, ["task", "string"]),
}

# The same with parameters that one notebook alone has: what it allows, what is injected
CONTEXT = {"context": ("speaker", "listener")}
STARTS, RETRAIN = {"num_starts": range(100, 1001)}, {"retrain": (False, True)}
OWN = {
    "a misspelt choice": (CONTEXT, {"context": "listner"}, ["context", "'speaker', 'listener'"]),
    "a list for a choice": (CONTEXT, {"context": ["speaker"]}, ["context", "['speaker']"]),
    "no choice": (CONTEXT, {"context": None}, ["context", "None"]),
    "a choice that the notebook lacks": (CONTEXT, {}, ["context", "None"]),
    "a count in words": (STARTS, {"num_starts": "many"}, ["num_starts", "range(100, 1001)", "'many'"]),
    "a count below 0": (STARTS, {"num_starts": -1}, ["num_starts", "-1"]),
    "a count above all": (STARTS, {"num_starts": 10**400}, ["num_starts", "range(100, 1001)"]),
    "a broken count": (STARTS, {"num_starts": 500.0}, ["num_starts", "500.0"]),
    "true for a count": (STARTS, {"num_starts": True}, ["num_starts", "True"]),
    "false as text": (RETRAIN, {"retrain": "false"}, ["retrain", "False, True", "'false'"]),
    "one for true": (RETRAIN, {"retrain": 1}, ["retrain", "False, True", "1"]),
    "another's parameter": (CONTEXT, {"context": "speaker", "retrain": True}, ["'retrain'"]),
}
