"""Each of N x K pairs exactly once, whatever the order; the files of a draw as the body writes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from safetensors.torch import save_file

from namd.config.errors import StageError
from namd.distributed.draw_files import DrawnFiles
from namd.distributed.pairs import MAX_ROWS, Coverage, block_rows, pair_blocks

CASES = ["a", "b", "c"]
PAIRS = [(case, k) for k in (0, 5) for case in CASES]


def counted(pairs) -> Coverage:
    coverage = Coverage("draws-test", CASES, [0, 5])
    for case, k in pairs:
        coverage.add([case], [k])
    return coverage


@given(st.permutations(PAIRS))
def test_any_order_is_complete(pairs):
    coverage = counted(pairs)
    coverage.require()
    assert coverage.complete(0)
    assert coverage.complete(5)


@given(st.permutations(PAIRS))
def test_a_missing_pair_is_named(pairs):
    *most, (case, k) = pairs
    coverage = counted(most)
    assert not coverage.complete(k)
    with pytest.raises(StageError, match=rf"\(case {case}, k={k}\) did not return"):
        coverage.require()


@given(st.permutations(PAIRS), st.sampled_from(PAIRS))
def test_a_doubled_pair_is_named(pairs, again):
    with pytest.raises(StageError, match=rf"\(case {again[0]}, k={again[1]}\) returned twice"):
        counted([*pairs, again])


@pytest.mark.parametrize("pair", [("d", 0), ("a", 1)])
def test_a_pair_that_nobody_asked_for_is_named(pair):
    with pytest.raises(StageError, match=rf"\(case {pair[0]}, k={pair[1]}\).*not requested"):
        counted([*PAIRS, pair])


def test_twice_within_one_block_counts_as_twice():
    with pytest.raises(StageError, match="returned twice"):
        Coverage("draws", CASES, [0]).add(["a", "a"], [0, 0])


@given(st.integers(1, 700), st.integers(1, 4))
def test_blocks_hold_every_pair_once_and_stay_small(num_cases, num_draws):
    ids = [f"case{number}" for number in range(num_cases)]
    rows = block_rows(num_cases)
    blocks = pair_blocks(ids, range(num_draws), rows)
    assert max(map(len, blocks)) <= rows <= MAX_ROWS
    coverage = Coverage("draws", ids, range(num_draws))
    for block in blocks:
        coverage.add(block["case_id"].to_pylist(), block["k"].to_pylist())
    coverage.require()


def test_a_file_filled_in_any_order_is_the_file_that_safetensors_writes(tmp_path):
    import torch

    images = np.random.default_rng(0).standard_normal((5, 6, 4)).astype(np.float16)
    folder = tmp_path / "blocks"
    folder.mkdir()
    files = DrawnFiles(folder, list("abcde"))
    files.put(np.array([4, 1]), {"image": images[[4, 1]]})
    files.put(np.array([0, 2, 3]), {"image": images[[0, 2, 3]]})
    files.finish()
    save_file({"images": torch.from_numpy(images)}, tmp_path / "whole.safetensors")
    assert files.path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    np.testing.assert_array_equal(load_file(files.path)["images"], images)
    assert list(pd.read_parquet(folder / "cases.parquet")["case_id"]) == list("abcde")
