"""The command `maft`: what it says of a profile and what it makes. See `test_bad_input` for errors."""

import pytest

from maft_lib.command import main, maker
from maft_lib.profiles import NOTEBOOKS


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Runs go to a folder of the test's own."""
    monkeypatch.setenv("MAFT_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "wanted, notebook",
    [
        ("fig01", "03_4_multiple_iterations"),
        ("fig12", "04_3_zero_shot"),
        ("table01_published", "03_3_quantitative_results"),
        ("F_more_agents", "F_more_agents"),
    ],
)
def test_a_figure_or_a_table_is_found_in_the_notebook_that_saves_it(wanted, notebook):
    assert maker(wanted) == notebook


def test_every_command_explains_itself(capsys):
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name in ("lab", "figures", "status", "estimate", "doctor", "report", "clean"):
        assert name in listed and main([name, "--help"]) == 0


def test_status_names_every_notebook(capsys):
    assert main(["status", "smoke"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name} " in said for name in NOTEBOOKS) and "0.00 GiB" in said


def test_the_estimate_is_that_of_the_profile(capsys):
    assert main(["estimate", "smoke"]) == 0
    assert "requests" in capsys.readouterr().out


def test_the_doctor_finds_nothing_missing_for_the_shipped_model(capsys):
    assert main(["doctor", "smoke"]) == 0
    assert "nothing is missing" in capsys.readouterr().out


def test_the_doctor_says_what_a_profile_lacks_and_what_helps(capsys, elsewhere, monkeypatch):
    for package in ("huggingface_hub.constants", "datasets.config"):  # which are imported already
        monkeypatch.setattr(f"{package}.HF_HUB_OFFLINE", True)
    profile = elsewhere / "mine.yml"
    profile.write_text(
        "model_name_or_path: nobody/nothing\nreport_to: wandb\ntask: gsm\ntasks: [gsm]\n"
    )
    assert main(["doctor", str(profile)]) == 1
    said = capsys.readouterr().out
    assert "pip install wandb" in said and "hf download nobody/nothing" in said and "data_dir" in said
    profile.write_text("backend: openai\nmodel_name_or_path: gpt\n")
    assert main(["doctor", str(profile)]) == 1 and "OPENAI_API_KEY" in capsys.readouterr().out


def test_clean_asks_first(elsewhere, monkeypatch):
    (elsewhere / "runs").mkdir()
    monkeypatch.setattr("typer.confirm", lambda question: False)
    assert main(["clean", "smoke"]) == 0 and (elsewhere / "runs").exists()
    assert main(["clean", "smoke", "--yes"]) == 0 and not (elsewhere / "runs").exists()
