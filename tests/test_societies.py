"""Which agents formed a society: recorded by studies, found again, in moved and damaged folders too."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maft_lib.lab.studio import society_label
from maft_lib.society import Agent, Society, base_society, list_societies, save_society

ABOUT = {"method": "multiagent_ft", "task": "arithmetic", "seed": 0, "iteration": 2, "accuracy": 0.708}


def finetuned(runs: Path, model: str, *names: str) -> Society:
    """A society whose generation agents are the checkpoints `names`; its critics are base agents."""
    folders = [runs / "checkpoints" / name for name in names]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    agents = tuple(
        Agent(f"generation-{n}", "generator", str(f)) for n, f in enumerate(folders, start=1)
    )
    return Society(agents, base_society(model, len(names)).critics, Agent("s", "summarizer", model))


def test_a_society_comes_back_as_it_was(tmp_path, model):
    society = finetuned(tmp_path, model, "one", "two")
    place = save_society(tmp_path, society, **ABOUT, profile="laptop", model="maft_lib/miniature/model")
    (found,) = list_societies(tmp_path)
    assert found.society == society
    assert found.about == {**ABOUT, "profile": "laptop", "model": "maft_lib/miniature/model"}
    assert society_label(found.about) == "Multiagent FT, arithmetic, seed 0, iteration 2: 71 % (laptop)"
    assert str(tmp_path) not in place.read_text() and model not in place.read_text()


def test_a_label_says_what_was_trained_on_and_takes_any_method(tmp_path, model):
    society = finetuned(tmp_path, model, "one", "two")
    save_society(tmp_path, society, **{**ABOUT, "method": "mine", "trained_on": "math"})
    (found,) = list_societies(tmp_path)
    assert society_label(found.about) == "mine, math to arithmetic, seed 0, iteration 2: 71 %"


def test_base_agents_alone_are_not_written_down(tmp_path, model):
    assert save_society(tmp_path, base_society(model, 3), **ABOUT) is None
    assert list_societies(tmp_path) == [] and not (tmp_path / "societies").exists()


def test_writing_the_same_again_changes_nothing(tmp_path, model):
    society = finetuned(tmp_path, model, "one", "two")
    place = save_society(tmp_path, society, **ABOUT)
    before = place.stat()
    assert save_society(tmp_path, society, **ABOUT) == place
    assert place.stat().st_mtime_ns == before.st_mtime_ns and place.stat().st_ino == before.st_ino
    assert save_society(tmp_path, society, **{**ABOUT, "seed": 1}) != place
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda seed: save_society(tmp_path, society, **{**ABOUT, "seed": seed % 3}), range(48)
            )
        )
    assert [saved.about["seed"] for saved in list_societies(tmp_path)] == [0, 1, 2]
    assert len(list((tmp_path / "societies").iterdir())) == 3  # nothing is left beside them


def test_societies_are_listed_by_name_and_by_number(tmp_path, model):
    society = finetuned(tmp_path, model, "one", "two")
    wanted = [
        ("multiagent_ft", 2, 1),
        ("multiagent_ft", 10, 2),
        ("multiagent_ft", 10, 10),
        ("star", 1, 1),
    ]
    for method, seed, iteration in reversed(wanted):
        save_society(
            tmp_path, society, **ABOUT | {"method": method, "seed": seed, "iteration": iteration}
        )
    found = [
        tuple(saved.about[n] for n in ("method", "seed", "iteration"))
        for saved in list_societies(tmp_path)
    ]
    assert found == wanted


def test_a_moved_folder_of_runs_still_works(tmp_path, model):
    save_society(tmp_path / "old", finetuned(tmp_path / "old", model, "one", "two"), **ABOUT)
    shutil.move(tmp_path / "old", tmp_path / "new")
    (found,) = list_societies(tmp_path / "new")
    models = [agent.model for agent in found.society.generators]
    assert models == [str(tmp_path / "new" / "checkpoints" / name) for name in ("one", "two")]
    assert found.society.summarizer.model == model


def test_societies_whose_checkpoints_are_gone_are_skipped(tmp_path, model):
    save_society(tmp_path, finetuned(tmp_path, model, "one", "two"), **ABOUT)
    save_society(tmp_path, finetuned(tmp_path, model, "one", "three"), **{**ABOUT, "iteration": 1})
    (tmp_path / "checkpoints" / "two").rmdir()
    assert [saved.about["iteration"] for saved in list_societies(tmp_path)] == [1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:40],
        lambda text: "[]",
        lambda text: "\x00",
        lambda text: text.replace("arithmetic", "arithmetik"),
        lambda text: json.dumps({"society": {}, "about": {}}),
    ],
)
def test_a_damaged_file_is_left_out_and_said(tmp_path, model, damage):
    society = finetuned(tmp_path, model, "one", "two")
    place = save_society(tmp_path, society, **ABOUT)
    save_society(tmp_path, society, **{**ABOUT, "seed": 1})
    place.write_text(damage(place.read_text()))
    with pytest.warns(UserWarning, match="damaged files are left out") as told:
        assert [saved.about["seed"] for saved in list_societies(tmp_path)] == [1]
    assert len(told) == 1 and "\n" not in str(told[0].message)
    save_society(tmp_path, society, **ABOUT)  # writes it anew
    assert len(list_societies(tmp_path)) == 2
