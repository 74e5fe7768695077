import pytest

from namd.config.errors import ConfigError
from namd.config.parsing import parse
from namd.config.presets import load_preset, preset_description, preset_names
from namd.methods.namd.method import METHOD
from namd.methods.namd.settings import NAMDConfig


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text("method: namd\nvae: {weight: 1, steps: 5}\n")
    (tmp_path / "small.yaml").write_text("extends: base\nvae: {steps: 2}\n")
    (tmp_path / "one.yaml").write_text("extends: two\n")
    (tmp_path / "two.yaml").write_text("extends: one\n")
    (tmp_path / "bad.yaml").write_text("extends: [base, 2]\n")
    (tmp_path / "both.yaml").write_text("extends: [base, ../other/judge]\nvae: {steps: 1}\n")
    other = tmp_path.parent / "other"
    other.mkdir(exist_ok=True)
    (other / "judge.yaml").write_text("judge: {steps: 3}\nvae: {weight: 4}\n")
    return tmp_path


def test_a_preset_is_laid_over_the_one_it_extends(folder):
    assert preset_names(folder) == ["bad", "base", "both", "one", "small", "two"]
    assert load_preset("small", folder) == {"method": "namd", "vae": {"weight": 1, "steps": 2}}


def test_a_preset_is_laid_over_several_the_later_one_first_and_from_another_folder(folder):
    found = load_preset("both", folder)
    assert found == {"method": "namd", "vae": {"weight": 4, "steps": 1}, "judge": {"steps": 3}}


@pytest.mark.parametrize(
    ("name", "word"),
    [("smal", "did you mean small?"), ("one", "ring"), ("bad", "extends"), ("../base", "exist")],
)
def test_a_preset_that_cannot_be_is_refused(folder, name, word):
    with pytest.raises(ConfigError, match=word.replace("?", r"\?")):
        load_preset(name, folder)


@pytest.mark.parametrize("about", ["", "about: ''", "about: [a]", "about: |\n  a\n  b"])
def test_a_preset_that_does_not_say_what_it_is_for_is_refused(about, folder):
    (folder / "mute.yaml").write_text(f"extends: told\n{about}\n")
    (folder / "told.yaml").write_text("about: for tests\nvae: {steps: 1}\n")
    with pytest.raises(ConfigError, match="about"):
        preset_description("mute", folder)
    assert preset_description("told", folder) == "for tests"
    assert load_preset("told", folder) == {"vae": {"steps": 1}}


def test_the_authors_code_reads_the_last_token_of_the_text_and_the_paper_eos():
    found = {
        name: parse(NAMDConfig, METHOD.preset(name)).finetune.readout
        for name in ("paper", "paper-authors-code")
    }
    assert found == {"paper": "eos", "paper-authors-code": "last_text"}
