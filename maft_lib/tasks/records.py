"""Reads the records of a published data set, from a folder or the hub. Knows no task, no split.

A record is read by its task's `parse`, which raises `BadRecord` with a reason. What is done about bad
records is the caller's choice (`on_bad_records`); nothing is left out or repaired silently.

The rule for repeated questions (same text once case, white space and punctuation are folded): if the
answer is the same too, the first is kept and a `DataWarning` tells of the others, since published sets
hold a few (MATH one, MMLU's STEM subjects some dozen). If the answers differ, one of them is wrong and
both cannot be meant: the later one is a bad record.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from maft_lib.tasks.problem import Problem, normalised
from maft_lib.wording import one_line

ENVIRONMENT = "MAFT_DATA_DIR"
POLICIES = ("refuse", "skip")
NAMED = 5  # bad records that an error names one by one
LONGEST_ANSWER = 300  # characters that grading reads, `grading.latex.LONGEST`: longer is always wrong
# How files begin that hold records in another form than JSON lines.
_OTHERS = {b"\x1f\x8b": "a gzip file", b"PK\x03\x04": "a zip file", b"PAR1": "a Parquet file"}


class DataError(ValueError):
    """Problems cannot be had; the message says what cannot be asked for, which file is needed or which
    records are bad."""


class DataWarning(UserWarning):
    """Records were left out or read in a way that a user should know of."""


class BadRecord(ValueError):
    """One record that is no problem of its task; the message is the reason."""


@dataclass(frozen=True)
class Published:
    """One split of a published data set: its file's possible names, its place on the hub, its content.

    `content` is the `content_hash` of the two `fields` over all records, where it is known; records
    from the hub must have it, whichever mirror they come from. `optional` says that the task can do
    without the split. `notice` says of a good record how it was read, if that needs saying.
    """

    task: str
    files: tuple[str, ...]
    repo: str
    config: str
    split: str
    revision: str
    num_records: int
    parse: Callable[[dict[str, Any]], Problem]
    fields: tuple[str, str] = ("question", "answer")
    content: str | None = None
    optional: bool = False
    notice: Callable[[dict[str, Any]], str | None] = lambda record: None

    def missing(self, why: str) -> DataError:
        """The error for a split that cannot be had, with what to do."""
        file = " or ".join(self.files)
        return DataError(
            f"{self.task} needs {file}: {why}; put the file into a folder and name that folder with "
            f"data_dir or {ENVIRONMENT}."
        )


@dataclass(frozen=True)
class Loaded:
    """What a file or a split on the hub holds: problems, and which records are bad or to be noticed."""

    source: str
    unit: str  # how records are counted: line or row
    problems: tuple[Problem, ...]
    num_records: int
    bad: tuple[tuple[int, str], ...]
    notices: tuple[tuple[int, str], ...]


def data_folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The folder to read from: `data_dir`, else MAFT_DATA_DIR, else None, which stands for the hub.

    Raises `DataError` if it is no folder.
    """
    named = os.environ.get(ENVIRONMENT) or None if data_dir is None else data_dir
    if named is None:
        return None
    folder = os.path.expanduser(named)
    if not os.path.isdir(folder):
        name = ENVIRONMENT if data_dir is None else "data_dir"
        raise DataError(
            f"{name} {folder or repr('')!s:.300} is not a folder: name the one with the data files."
        )
    return Path(folder)


def find_file(published: Published, folder: Path) -> Path | None:
    """The split's file in a folder, or None. What has its name and cannot be read is found, too."""
    return next((folder / name for name in published.files if os.path.lexists(folder / name)), None)


def load(published: Published, folder: Path | None, on_bad_records: str = "refuse") -> list[Problem]:
    """The problems of a split, from a folder's file or, without a folder, from the hub.

    Raises `DataError` if they cannot be read, if there is none, or if records are bad and
    `on_bad_records` is `refuse`; `skip` leaves those out with a `DataWarning`.
    """
    loaded = _from_hub(published) if folder is None else _from_folder(published, folder)
    if loaded.bad and on_bad_records == "refuse":
        raise DataError(_refusal(loaded))
    _warn(loaded, "left out", loaded.bad)
    _warn(loaded, "noticed", loaded.notices)
    if not loaded.problems:
        raise DataError(f"{loaded.source} holds no problem of {published.task}: is it the right file?")
    return list(loaded.problems)


def text(record: Mapping[str, Any], name: str) -> str:
    """A field that must hold some text, without white space at its ends. Raises `BadRecord`."""
    if name not in record:
        raise BadRecord(f"has no field {name!r}")
    value = record[name]
    if not isinstance(value, str):
        raise BadRecord(f"{name!r} is {type(value).__name__}, not text")
    if not value.strip():
        raise BadRecord(f"{name!r} is empty")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadRecord(f"{name!r} has half a surrogate pair")
    return value.strip()


def gradable(answer: str) -> str:
    """An answer that grading can read. Raises `BadRecord` for one that no response could match."""
    if len(answer) > LONGEST_ANSWER:
        raise BadRecord(f"has an answer of {len(answer)} characters, more than {LONGEST_ANSWER}")
    return answer


def content_hash(records: Iterable[Mapping[str, Any]], fields: tuple[str, str]) -> str:
    """Hash of two fields of all records, white space folded, whatever the order of the records."""
    pairs = ([" ".join(str(r.get(name)).split()) for name in fields] for r in records)
    lines = sorted(json.dumps(pair) for pair in pairs)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _from_folder(published: Published, folder: Path) -> Loaded:
    path = find_file(published, folder)
    if path is None:
        raise published.missing(f"there is none in {folder}")
    try:
        state = path.stat()
        return _read_file(published, path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file.") from error


@lru_cache(maxsize=16)
def _read_file(published: Published, path: Path, changed: int, size: int) -> Loaded:
    """A file's records, read once per process unless the file changes (its time and size say so)."""
    data = path.read_bytes()
    if other := next((_OTHERS[begin] for begin in _OTHERS if data.startswith(begin)), None):
        raise DataError(f"{path} is {other}, not JSON lines: unpack or convert it.")
    lines = [*_json_lines(data)]
    records = [record for _, record in lines if isinstance(record, dict)]
    known = published.content in (None, content_hash(records, published.fields))
    source = path.name if known else f"{path.name}, not the published records"
    return _parse(published, source, "line", lines)


def _json_lines(data: bytes) -> Iterator[tuple[int, Any]]:
    """(line, record) of a file's lines that are not blank; what cannot be read is a `BadRecord`."""
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield number, _json(line)


def _json(line: bytes) -> Any:
    try:
        record = json.loads(line.decode("utf-8"), object_pairs_hook=_once)
    except BadRecord as reason:
        return reason
    except UnicodeDecodeError:
        return BadRecord("is not UTF-8 text")
    except (ValueError, RecursionError):
        return BadRecord("is broken JSON")
    return record if isinstance(record, dict) else BadRecord("is no JSON object")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of whose repeated names JSON would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadRecord("names a field twice")
    return found


@lru_cache(maxsize=8)
def _from_hub(published: Published) -> Loaded:
    rows = [dict(row) for row in _hub_rows(published)]
    name = f"{published.repo} {published.split}"
    content = content_hash(rows, published.fields)
    if len(rows) != published.num_records or published.content not in (None, content):
        raise published.missing(
            f"{name} at revision {published.revision} on the hub does not hold the published records "
            f"({len(rows)} of {published.num_records}, content hash {content[:16]})"
        )
    return _parse(published, f"{name}@{published.revision[:7]}", "row", enumerate(rows, start=1))


def _hub_rows(published: Published) -> Iterable[Mapping[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        why = "the package datasets, which reads it from the Hugging Face hub, is not installed"
        raise published.missing(why) from error
    at = {"split": published.split, "revision": published.revision}
    try:
        return load_dataset(published.repo, published.config, **at)
    except Exception as error:  # no network, offline mode, a proxy, a repository that is gone
        why = one_line(f"{type(error).__name__}: {error}", 200)
        raise published.missing(f"the Hugging Face hub could not be reached ({why})") from error


def _parse(published: Published, source: str, unit: str, records: Iterable[tuple[int, Any]]) -> Loaded:
    """Parses records and sorts out what is bad, repeated or worth a notice."""
    first: dict[str, tuple[int, Problem]] = {}
    bad, notices, count = [], [], 0
    for number, record in records:
        count += 1
        try:
            problem = _problem(published, source, record)
            key = normalised(problem.question)
            if key in first:
                notices.append((number, _repeat(problem, *first[key])))
                continue
            first[key] = number, problem
            if notice := published.notice(record):
                notices.append((number, notice))
        except BadRecord as reason:
            bad.append((number, str(reason)))
    problems = tuple(problem for _, problem in first.values())
    return Loaded(source, unit, problems, count, tuple(bad), tuple(notices))


def _problem(published: Published, source: str, record: Any) -> Problem:
    if isinstance(record, BadRecord):
        raise record
    return replace(published.parse(record), source=source)


def _repeat(problem: Problem, number: int, earlier: Problem) -> str:
    """What to notice about a repeated question; raises `BadRecord` if its answer is another one."""
    if normalised(problem.answer) != normalised(earlier.answer):
        raise BadRecord(f"repeats the question of record {number} with another answer")
    return "repeats an earlier question and answer, and is left out"


def _refusal(loaded: Loaded) -> str:
    file = loaded.source.split(",")[0]
    named = "; ".join(f"{file}:{number} {reason}" for number, reason in loaded.bad[:NAMED])
    more = f"; and {len(loaded.bad) - NAMED} more" if len(loaded.bad) > NAMED else ""
    return (
        f"{len(loaded.bad)} of {loaded.num_records} records are bad: {named}{more}. Mend them, or set "
        f"on_bad_records to 'skip' to leave them out."
    )


def _warn(loaded: Loaded, what: str, records: tuple[tuple[int, str], ...]) -> None:
    """One warning about all records, their numbers gathered by reason."""
    if not records:
        return
    by_reason = defaultdict(list)
    for number, reason in records:
        by_reason[reason].append(str(number))
    told = "; ".join(f"{reason}: {', '.join(numbers)}" for reason, numbers in by_reason.items())
    share = f"{len(records)} of {loaded.num_records}"
    message = f"{loaded.source}: {share} records {what}, by {loaded.unit}: {told}."
    warnings.warn(message, DataWarning, stacklevel=5)
