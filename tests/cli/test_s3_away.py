"""Commands on an S3 that never answered: one line and exit 2, for its address may be wrong."""

import json

import pytest

from namd.cli.main import main
from namd.storage import s3

pytestmark = pytest.mark.serial

QUESTIONS = [
    ["study", "list"],
    ["study", "status", "clouded"],
    ["store", "ls"],
    ["report", "clouded"],
]


@pytest.fixture(autouse=True)
def _quick_limits(monkeypatch):
    monkeypatch.setattr(s3, "CONNECT_S", 1)
    monkeypatch.setattr(s3, "ANSWER_S", 1)


@pytest.mark.parametrize("words", QUESTIONS, ids=lambda words: "-".join(words))
def test_a_dead_s3_is_bad_input_in_one_line(s3_line, s3_url, capsys, words):
    s3_line.cut()
    assert main([*words, "--store", s3_url, "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["exit"] == 2
    assert said.err.count("\n") == 1
    assert s3_url in said.err.strip().splitlines()[-1]


def test_the_same_s3_alive_is_read(s3_url, capsys):
    from namd.pipeline.store import open_store

    open_store(s3_url)
    assert main(["store", "ls", "--store", s3_url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])
    assert main(["study", "list", "--store", s3_url, "--json"]) == 0
