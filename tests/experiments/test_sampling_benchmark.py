"""The benchmark compares like with like: its two ways must draw the same images."""

import argparse
import json

import pytest
import torch

from experiments.benchmarks import sampling


@pytest.fixture(scope="module")
def work():
    options = argparse.Namespace(device="cpu", precision="fp32", batch_size=2)
    return sampling.build_work(sampling._configuration("tiny", steps=4), 3, options)


def test_both_ways_draw_the_same_images_whatever_the_batch(work):
    drawn, scores = sampling.draw_batched(work, 2)
    assert drawn.shape[:2] == scores.shape == (2, 3)
    for case, index in [(0, 0), (2, 1)]:
        naive = sampling.draw_naively(work, case, index)[0]
        torch.testing.assert_close(drawn[index, case], naive, atol=1e-4, rtol=0)


def test_another_draw_or_case_is_another_image(work):
    drawn, _ = sampling.draw_batched(work, 2)
    naive = sampling.draw_naively(work, 2, 1)[0]
    assert (drawn[0, 2] - naive).abs().max() > 1e-2
    assert (drawn[1, 1] - naive).abs().max() > 1e-2


def test_it_reports_the_ratio_and_what_bounds_it(capsys):
    sizes = ["--cases", "2", "--draws", "1", "--steps", "2", "--naive-pairs", "2"]
    before = torch.get_num_threads()
    code = sampling.main(
        ["--preset", "tiny", *sizes, "--threads", "1", "--device", "cpu", "--json"]
    )
    torch.set_num_threads(before)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0
    assert result["same_images"]
    assert result["ratio"] > 0
    assert 0 < result["share_in_products"] < 1
    assert result["step_gflop"] < result["step_gflop_diffusers"]


def test_a_preset_of_external_weights_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        sampling.main(["--preset", "paper"])
    assert stop.value.code == 2
    assert "external weights" in capsys.readouterr().err
