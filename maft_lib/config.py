"""Every parameter of a study: its type, default and bounds.

The defaults are the paper's (Section 3.1, Appendix B.3); a profile is a YAML file of `params/` that
changes some of them, flat, as papermill reads it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from maft_lib.wording import nearest, one_line, shown

COPIES = "maft_notebooks"  # the folder of the notebooks that `maft lab` opens


class ConfigError(ValueError):
    """A parameter is wrong; the message names it, what was expected and the nearest valid name."""


def _printable(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("Input should be one line of printable text")
    return text


Line = Annotated[str, AfterValidator(_printable)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Number = Annotated[int, Field(ge=2, le=1_000_000)]
Numbers = Annotated[  # one for all tasks, or by task
    Annotated[Number, Tag("")] | Annotated[dict[str, Number], Tag(" ")],
    Discriminator(lambda value: " " if isinstance(value, dict) else ""),
]
Day = Annotated[str, BeforeValidator(lambda value: date.fromisoformat(str(value)).isoformat())]


class Config(BaseModel):
    """The parameters of a study. Immutable: `config.replace(...)` makes another, validated config."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    # The name of the params file, and of the output folders
    profile: str = Field("custom", pattern=r"^\w[\w.-]*$")

    # The base model and what runs it
    model_name_or_path: Line = "maft_lib/miniature/model"
    # Such code can do whatever the user can; only who has read it can say that it may run.
    trust_remote_code: bool = False  # runs code that comes with the models
    backend: Literal["transformers", "vllm", "openai"] = "transformers"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    num_workers: int | None = Field(None, ge=1, le=256)  # on a CPU, one thread each; None: one a core
    max_batch_size: int | None = Field(None, ge=1)  # rows generated together; None: as many as fit

    # Where work runs: here, or as tasks of a Ray cluster that shares `runs_dir`
    executor: Literal["local", "ray"] = "local"
    ray_address: Line | None = None  # `auto` or host:port; None: a cluster of this machine alone

    # vLLM, in its words
    tensor_parallel_size: int = Field(1, ge=1, le=64)  # GPUs that share one engine
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    max_model_len: int | None = Field(None, ge=16)  # prompt and response; None: the model's window
    batch_invariant: bool = False  # on GPUs a text is the same in any batch, for some of the speed

    # A server that speaks OpenAI's protocol; its key and base_url come from the environment alone
    max_concurrency: int = Field(16, ge=1, le=4096)  # requests in flight at a time
    max_retries: int = Field(6, ge=0, le=100)  # of one request, with growing pauses
    request_timeout: float = Field(120.0, gt=0, le=86400)  # seconds
    learning_rate_multiplier: float = Field(1.0, gt=0, le=1000)  # of finetuning jobs

    # The problems (Section 3.1)
    task: str = "arithmetic"
    tasks: list[str] = Field(["arithmetic"], min_length=1)  # columns of Table 1
    eval_task: str | None = None  # of the eval problems, if another than is trained on (Section 4.3)
    num_train: int = Field(500, ge=1, le=1_000_000)
    # Of all tasks, or by task: {gsm: 1000, math: 500}
    num_eval: Numbers = 500
    # Of math and mini_math; None: all. The paper: MATH 1-3
    levels: list[Annotated[int, Field(ge=1, le=5)]] | None = Field(None, min_length=1)
    max_operand: int = Field(30, ge=2, le=1_000_000)
    data_dir: Line | None = None  # of data files; None: MAFT_DATA_DIR, else the Hugging Face hub
    # A damaged file is better mended than half read; what is left out changes the numbers.
    on_bad_records: Literal["refuse", "skip"] = "refuse"
    prompts: Line | None = None  # another prompts file than the default

    # The debate (Section 2.1)
    num_agents: int = Field(3, ge=2, le=100)
    num_rounds: int = Field(2, ge=1, le=20)  # M, the generation round included
    summarize: bool = True  # False: responses are concatenated (Section 4.1)
    cooperative: bool = False  # agents combine responses (Appendix D)
    # Algorithm 1 trains generators and critics only, so that the base model summarizes; "agent": the
    # critic that is to read the summary writes it.
    summarized_by: Literal["base", "agent"] = "base"
    # Whose responses a critic reads about; the others are controls of what a debate is good for.
    critics_read: Literal["others", "itself", "another problem"] = "others"
    unique_ids: bool = False  # prompts name their agent (Appendix E.2)
    temperature: float = Field(1.0, ge=0, le=10)
    top_p: float = Field(0.9, gt=0, le=1)
    max_tokens: int = Field(2048, ge=1, le=1_000_000)  # new tokens per response
    # New tokens per response on top, for the thoughts of a model that thinks before it answers
    max_thinking_tokens: int = Field(0, ge=0, le=1_000_000)
    enable_thinking: bool | None = None  # read by Qwen3's template and its kin; None: their default
    # The day that chat templates are told if they ask, as Llama-3.2's does; with today's, tomorrow's
    # prompts would be others. This is what that template says where there is no clock.
    template_date: Day = "2024-07-26"

    # Finetuning (Sections 2.3, 2.4; Appendix B.3)
    num_iterations: int = Field(1, ge=1, le=100)  # L
    # The paper gives no value of w. One half asks as much of a critic's corrections as of its
    # steadiness, which is what equation 1 weighs.
    w: float = Field(0.5, ge=0, le=1)  # share of D^C- in a critic's data (equation 1)
    # Section 2.2 trains one model on the responses that match the vote, and blames its plateau on final
    # results that are alike: so final responses. It can be read as first ones or whole conversations;
    # "coherent" leaves out final responses that contradict their own last step.
    single_agent_data: Literal["final", "first", "coherent", "conversations"] = "final"
    # With all turns a critic would be trained on the wrong first answers of D^C-.
    critic_loss_on: Literal["final_turn", "all_turns"] = "final_turn"
    # Section 2.4: the finetuned agents go on into the next iteration.
    train_from: Literal["previous", "base"] = "previous"
    learning_rate: float = Field(5.0e-6, gt=0, le=1)
    critic_learning_rate: float = Field(5.0e-7, gt=0, le=1)
    num_train_epochs: int = Field(2, ge=1, le=1000)
    critic_num_train_epochs: int = Field(1, ge=1, le=1000)
    per_device_train_batch_size: int = Field(1, ge=1, le=4096)
    weight_decay: float = Field(1.0e-3, ge=0, le=1)
    # STaR trains until the loss saturates: until a round lowers the mean loss of the last epoch by less
    # than this share, or for so many rounds. One percent is about the noise over 500 examples.
    star_tolerance: float = Field(0.01, ge=0, lt=1)
    star_max_rounds: int = Field(5, ge=1, le=100)
    # Instead of all parameters, adapters of this rank on every linear layer; they need larger steps.
    lora_rank: int | None = Field(None, ge=1, le=4096)
    lora_alpha: int = Field(32, ge=1, le=65536)
    lora_learning_rate: float = Field(2.0e-4, gt=0, le=1)
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    max_grad_norm: float = Field(1.0, gt=0)
    # What large models need, in Hugging Face's and torchrun's words
    gradient_accumulation_steps: int = Field(1, ge=1, le=4096)
    gradient_checkpointing: bool = False  # less memory for a third more time
    optim: Literal["adamw_torch", "adamw_torch_8bit", "paged_adamw_8bit"] = "adamw_torch"
    load_in_4bit: bool = False  # QLoRA: the frozen base in 4 bits; with lora_rank
    nproc_per_node: int = Field(1, ge=1, le=64)  # GPUs that train one agent together by FSDP2
    report_to: Literal["none", "tensorboard", "wandb"] = "none"

    # Diversity (Section 4.2, Appendix C)
    scorer: Line | None = None  # whose likelihoods estimate the KL; None: the base model
    encoder: Line | None = None  # embeds responses; None: the base model's hidden states
    # T5 has no [CLS] token, and the first word of a response says little about it.
    pooling: Literal["mean", "first"] = "mean"  # of an encoder's token embeddings

    # The study
    methods: list[str] = Field(  # rows of Table 1
        ["base", "majority", "debate", "star", "majority_ft", "single_agent_ft", "multiagent_ft"],
        min_length=1,
    )
    seed: Seed = 0
    seeds: list[Seed] | None = Field(None, min_length=1)  # Table 1, Figure 1; None: `seed` alone
    notebooks: dict[str, dict[str, Any]] = {}  # parameters that hold in single notebooks
    runs_dir: Line = "runs"
    figures_dir: Line = "figures"

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.load_in_4bit and self.lora_rank is None:
            raise ConfigError("load_in_4bit: a base in 4 bits is frozen, so give a lora_rank, too.")
        if self.executor == "ray" and self.backend == "vllm":
            raise ConfigError("executor: on Ray models answer with backend: transformers, not vllm.")
        for name in ("tasks", "methods", "seeds", "levels"):
            values = getattr(self, name) or []
            if len(set(values)) < len(values):
                raise ConfigError(f"{name}: {values!r} has something twice.")
        return self

    @classmethod
    def of(cls, keys: Mapping[Any, Any]) -> Config:
        """The config with these parameters. `ConfigError` names up to five wrong ones."""
        try:
            return cls.model_validate(dict(keys))
        except ValidationError as error:
            raise ConfigError(" ".join(map(_sentence, error.errors()[:5]))) from None

    def replace(self, **changes: Any) -> Config:
        """The config with some parameters changed, validated again."""
        return self.of({**self.model_dump(), **changes})

    def num_problems(self, split: str, task: str | None = None) -> int:
        """How many problems of a task, by default of `task`, the split `train` or `eval` has."""
        if split == "train":
            return self.num_train
        if isinstance(self.num_eval, int):
            return self.num_eval
        if (task := task or self.task) not in self.num_eval:
            numbers = shown(self.num_eval)
            raise ConfigError(f"num_eval: {numbers} has no number for {shown(task)}: add one.")
        return self.num_eval[task]

    def path(self, name: str | Path) -> Path:
        """A path of the config, relative ones taken from the project's root."""
        return project_root() / os.path.expanduser(name)

    @property
    def base_model(self) -> str:
        """`model_name_or_path` as a folder where there is one, else as a name on the hub."""
        return self._model(self.model_name_or_path)

    @property
    def scoring_model(self) -> str:
        """The model whose likelihoods estimate the KL of Appendix C: `scorer`, else the base model."""
        return self._model(self.scorer or self.model_name_or_path)

    @property
    def encoding_model(self) -> str:
        """The model that embeds responses (Appendix C.4): `encoder`, else the base model."""
        return self._model(self.encoder or self.model_name_or_path)

    def _model(self, name: str) -> str:
        return str(next(iter(places(name)), name))

    def own(self, name: Literal["runs_dir", "figures_dir"]) -> Path:
        """This profile's folder in one of the two, which a stranger's link must not lead elsewhere."""
        folder = self.path(getattr(self, name)) / self.profile
        if folder.is_symlink():
            raise ConfigError(f"{name}: {folder} is a link to another place: remove it.")
        return folder

    @property
    def figures(self) -> Path:
        """Where this profile's figures and tables go; made if need be."""
        folder = self.own("figures_dir")
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _sentence(problem: Any) -> str:
    """One of pydantic's errors, in words."""
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:  # one of `_consistent`
        return str(message)
    if problem["type"] in ("extra_forbidden", "invalid_key"):  # the latter's input is the key
        name = problem["input"] if problem["type"] == "invalid_key" else problem["loc"][0]
        return _unknown("parameter", name, Config.model_fields)
    if problem["type"] == "float_type":
        message += " (in YAML a float with an exponent needs a point: 5.0e-7)"
    place = one_line(".".join(filter(str.strip, map(str, problem["loc"]))))
    return f"{place}: {message}, but it is {shown(problem['input'])}."


def check_name(kind: str, name: object, valid: Collection[str]) -> None:
    """Raises `ConfigError` with the nearest valid name if `name` is not one of `valid`."""
    if not isinstance(name, str) or name not in valid:
        raise ConfigError(_unknown(kind, name, valid))


def _unknown(kind: str, name: object, valid: Collection[str]) -> str:
    hint = f"expected one of {', '.join(valid)}." if len(valid) <= 25 else "see maft_lib/config.py."
    if near := nearest(name, valid, cutoff=0.5):
        hint = f"did you mean {near!r}?"
    return f"unknown {kind} {shown(name)}: {hint}"


def project_root() -> Path:
    """The folder for `runs/` and `figures/`: of the project this one lies in, else this one.

    A project is a clone, or a folder in which `maft lab` has put copies of the notebooks.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        is_clone = (folder / "params").is_dir() and (folder / "notebooks").is_dir()
        if is_clone or (folder / COPIES).is_dir():
            return folder
    return here


def places(name: str | Path) -> list[Path]:
    """Where a file or folder of this name is: in the project, the wheel, or the library's clone."""
    package = Path(__file__).resolve().parent
    folders = (project_root(), package / "shipped", package.parent)
    found = [folder / os.path.expanduser(name) for folder in folders]
    return list(filter(os.path.exists, found))


def read_mapping(path: str | Path, kind: str, error_class: type[ValueError]) -> dict[Any, Any]:
    """The mapping in a YAML file, as params and prompts are. Raises `error_class` without one."""
    try:
        found = _StrictLoader(Path(path).read_text(encoding="utf-8")).get_single_data()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise error_class(f"{kind} {path} cannot be read: {one_line(error)}.") from error
    if not isinstance(found, dict) or not found:
        raise error_class(f"{kind} {path} has no `key: value` lines.")
    return found


class _StrictLoader(yaml.SafeLoader):
    """Refuses keys that stand twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                mark = node.value[i][0].start_mark
                raise yaml.MarkedYAMLError(None, None, f"the key {key!r} stands there twice", mark)
        return super().construct_mapping(node, deep)
