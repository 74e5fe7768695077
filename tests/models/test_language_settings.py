"""Impossible language settings are refused with the value; possible ones are taken."""

import subprocess
import sys

import pytest

from namd.models.language_settings import (
    EmbeddedLanguageSettings,
    LanguageSettings,
    LoRASettings,
    SoftPromptSettings,
)


@pytest.mark.parametrize(
    ("made", "wrong", "right"),
    [
        (EmbeddedLanguageSettings, {"hidden_size": 30}, {"hidden_size": 32}),
        (EmbeddedLanguageSettings, {"num_layers": 0}, {"num_layers": 1}),
        (EmbeddedLanguageSettings, {"vocabulary_size": 100}, {"vocabulary_size": 512}),
        (EmbeddedLanguageSettings, {"probe_records": 10}, {"probe_records": 100}),
        (EmbeddedLanguageSettings, {"learning_rate": 0.0}, {"learning_rate": 1e-4}),
        (EmbeddedLanguageSettings, {"num_steps": -1}, {"num_steps": 0}),
        (EmbeddedLanguageSettings, {"number_smoothing": -1.0}, {"number_smoothing": 0.0}),
        (EmbeddedLanguageSettings, {"batch_size": 0}, {"batch_size": 1}),
        (LanguageSettings, {"source": ""}, {"source": "owner/name"}),
        (LanguageSettings, {"quantisation": "nf4"}, {"quantisation": "nf4", "source": "a/b"}),
        (LanguageSettings, {"quantisation": "nf4-double"}, {"source": "a/b"}),
        (LoRASettings, {"rank": -1}, {"rank": 4}),
        (LoRASettings, {"rank": 4, "target_modules": ()}, {"rank": 0, "target_modules": ()}),
        (LoRASettings, {"alpha": 0.0}, {"alpha": 1.0}),
        (SoftPromptSettings, {"num_sets": -1}, {"num_sets": 0}),
    ],
)
def test_impossible_values_are_refused(made, wrong, right):
    with pytest.raises(ValueError, match=r".+"):
        made(**wrong)
    made(**right)


def test_settings_need_no_torch():
    code = "import sys, namd.models.language_settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
