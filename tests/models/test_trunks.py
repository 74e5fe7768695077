"""LPIPS and Inception run from files of the published form, and never unpickle objects."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torchmetrics.functional.image.lpips import _LPIPS
from torchmetrics.image.fid import NoTrainInceptionV3
from torchvision.models import alexnet, vgg16

from namd.config.errors import InputError
from namd.config.seeding import generator
from namd.evaluate.metrics import inception_features, lpips_alex
from namd.evaluate.scores import Scorer
from namd.evaluate.settings import EvaluateSettings
from namd.evaluate.table import RowScores, build_table
from namd.models.initialisation import initialised_from
from namd.models.judge import Judge
from namd.models.judge_settings import JudgeArchitecture
from namd.models.settings import TrunkSettings
from namd.models.trunks import load_inception, load_lpips, read_state
from namd.models.weights import locate, status_of
from namd.models.weights_settings import WEIGHTS, ExternalWeight

SIZE = 32
COUNT = 6


def publish(name: str, state: dict, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a checkpoint whose name carries its digest, as torch hub's do."""
    plain = folder / "plain.pth"
    torch.save(state, plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()[:8]
    weight = ExternalWeight(**(vars(WEIGHTS[name]) | {"filename": f"{name}-{digest}.pth"}))
    monkeypatch.setitem(WEIGHTS, name, weight)
    return plain.rename(folder / weight.filename)


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, torch.Tensor]]:
    """Random trunks under the published names; classifiers, which LPIPS never reads, left out."""
    with initialised_from("test-trunks", 0), pytest.MonkeyPatch.context() as patch:
        # Left alone the constructor of torch-fidelity downloads its weights.
        patch.setattr(NoTrainInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr(torch, "load", lambda *_, **__: {})
        inception = NoTrainInceptionV3("inception-v3-compat", ["2048"], "nowhere").state_dict()
        found = {"inception": inception}
        for net, build in (("vgg", vgg16), ("alex", alexnet)):
            trunk = build(weights=None).features.state_dict()
            found[f"lpips-{net}"] = {f"features.{name}": value for name, value in trunk.items()}
    return found


def images(seed: int, size: int = SIZE) -> torch.Tensor:
    random = generator("test-trunks", seed)
    return torch.from_numpy(random.uniform(-1, 1, (COUNT, 1, size, size)).astype(np.float32))


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_a_published_trunk_is_used_from_wherever_the_configuration_says(
    net, states, tmp_path, monkeypatch
):
    name = f"lpips-{net}"
    path = publish(name, states[name], tmp_path, monkeypatch)
    before = torch.get_rng_state()
    network = load_lpips(net, str(path))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(network.net.slice1[0].weight, states[name]["features.0.weight"])
    assert not any(p.requires_grad for p in network.parameters())
    rgb = images(0, 64).expand(-1, 3, -1, -1)
    assert float(network(rgb, rgb).abs().max()) == 0
    assert float(network(rgb, rgb.flip(0)).min()) > 0
    assert locate(name, str(tmp_path)) == path
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(InputError, match="broken download"):
        load_lpips(net, str(path))


def test_the_same_tensors_as_safetensors_give_the_same_distance(states, tmp_path, monkeypatch):
    path = publish("lpips-alex", states["lpips-alex"], tmp_path, monkeypatch)
    safe = path.with_suffix(".safetensors")
    save_file(states["lpips-alex"], safe)
    pair = images(0), images(1)
    published, copied = lpips_alex("cpu", str(path)), lpips_alex("cpu", str(safe))
    assert np.array_equal(published(*pair), copied(*pair))
    save_file({"features.0.weight": torch.zeros(1)}, safe)
    with pytest.raises(InputError, match="not those of the alex trunk"):
        load_lpips("alex", str(safe))


def test_lpips_equals_torchmetrics_copy_of_it(states, tmp_path, monkeypatch):
    path = publish("lpips-alex", states["lpips-alex"], tmp_path, monkeypatch)
    ours = load_lpips("alex", str(path))
    theirs = _LPIPS(net="alex", pnet_rand=True)
    pair = [batch.expand(-1, 3, -1, -1) for batch in (images(0), images(1))]
    with torch.no_grad():
        assert not torch.allclose(theirs(*pair), ours(*pair))
        theirs.net.load_state_dict(ours.net.state_dict())
        torch.testing.assert_close(theirs(*pair), ours(*pair))


class _Malicious:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("pickle-was-run"),))


def test_a_pickle_under_the_right_digest_is_still_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.pth"
    bad.write_bytes(pickle.dumps(_Malicious()))
    with pytest.raises(InputError, match="not a file of tensors alone"):
        read_state(bad)
    torch.save({"features.0.weight": _Malicious()}, bad)
    with pytest.raises(InputError, match="not a file of tensors alone"):
        read_state(bad)
    assert not (tmp_path / "pickle-was-run").exists()
    torch.save([torch.zeros(1)], bad)
    with pytest.raises(InputError, match="named tensors"):
        read_state(bad)
    torch.save({"features.0.weight": torch.zeros(1)}, bad)
    assert read_state(bad).keys() == {"features.0.weight"}


@pytest.fixture
def scorer_arguments() -> dict:
    with initialised_from("test-judge", 0):
        judge = Judge(JudgeArchitecture(SIZE, 8, (8, 8, 16), 1, 16, 1, 2, 16, dropout=0.1))
    return {
        "judge": judge.eval().requires_grad_(False),
        "case_ids": [f"c{i}" for i in range(COUNT)],
        "followup": images(7)[:, 0].numpy(),
        "has_followup": np.ones(COUNT, bool),
        "spacing_mm": np.full(COUNT, 0.5),
    }


def rows_of(scorer: Scorer) -> dict:
    scored = scorer.score(images(8)[:, 0].numpy())
    real = scorer.score(images(7)[:, 0].numpy(), is_followup=True)
    return {
        "real_baseline": RowScores(real[0]),
        "real_followup": RowScores(real[0]),
        "copied_baseline": RowScores(scored[0], [scored[1]]),
    }


def table_of(rows: dict, arguments: dict):
    cases = pd.DataFrame(
        {
            "case_id": arguments["case_ids"],
            "patient_id": arguments["case_ids"],
            "label": np.arange(COUNT) % 2.0,
            "followup_SCT_LONG_DIA": 8.0,
        }
    )
    return build_table(rows, cases, EvaluateSettings(num_bootstrap=20), simulated=False)


def test_the_score_table_fills_lpips_fid_and_kid(states, tmp_path, monkeypatch, scorer_arguments):
    alex = publish("lpips-alex", states["lpips-alex"], tmp_path, monkeypatch)
    inception = publish("inception", states["inception"], tmp_path, monkeypatch)
    trunks = {"lpips_trunk": str(alex), "inception_trunk": str(inception)}
    scorer = Scorer(**scorer_arguments, lpips="alex", fid="inception", **trunks)
    row = table_of(rows_of(scorer), scorer_arguments).row("copied_baseline")
    assert row.lpips > 0
    assert row.fid > 0
    assert np.isfinite(row.kid)
    without = table_of(rows_of(Scorer(**scorer_arguments)), scorer_arguments)
    row = without.row("copied_baseline")
    assert (row.lpips, row.fid, row.kid) == (None, None, None)
    assert row.fid_judge is not None
    assert "stays empty" in status_of("lpips-alex", str(tmp_path / "absent")).announcement
    assert "stays empty" in status_of("inception", str(tmp_path / "absent")).announcement


def test_inception_gives_its_2048_features_and_refuses_another_network(
    states, tmp_path, monkeypatch
):
    path = publish("inception", states["inception"], tmp_path, monkeypatch)
    assert inception_features("cpu", str(path))(images(0)[:2]).shape == (2, 2048)
    other = publish("inception", states["lpips-alex"], tmp_path, monkeypatch)
    with pytest.raises(InputError, match="not those of FID's Inception"):
        load_inception(str(other))


def test_an_empty_path_is_refused():
    with pytest.raises(ValueError, match="lpips_vgg is a path or null"):
        TrunkSettings(lpips_vgg="")
    assert TrunkSettings(lpips_vgg="a").lpips_vgg == "a"
