"""The cloud file is what `ray up` reads."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config

from namd.distributed.session import DRIVER_RESOURCE


@pytest.fixture
def config(cluster_folder):
    return yaml.safe_load((cluster_folder / "ray-up.yaml").read_text(encoding="utf-8"))


def check(config):
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text(encoding="utf-8")))


def test_rays_schema_accepts_it(config):
    check(config)


def test_a_misspelt_field_would_be_seen(config):
    with pytest.raises(jsonschema.ValidationError, match="autoscaling_mode"):
        check({**config, "autoscaling_mode": "default"})


def test_ray_accepts_it_with_its_defaults_filled_in(config):
    validate_config(prepare_config(fillout_defaults(copy.deepcopy(config))))


def test_a_minimum_above_the_maximum_would_be_seen(config):
    wrong = copy.deepcopy(config)
    wrong["available_node_types"]["gpu"]["min_workers"] = 9
    with pytest.raises(ValueError, match="min_workers"):
        validate_config(prepare_config(fillout_defaults(wrong)))


def test_drivers_sit_on_the_head_which_is_no_spot_node(config):
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0, DRIVER_RESOURCE: 64}
    assert "InstanceMarketOptions" not in head["node_config"]
    for name in ("gpu", "cpu"):
        market = config["available_node_types"][name]["node_config"]["InstanceMarketOptions"]
        assert market == {"MarketType": "spot"}


def test_the_token_is_on_and_in_no_file(config):
    options = " ".join(config["docker"]["run_options"])
    assert "RAY_AUTH_MODE=token" in options
    mounted = [f"RAY_AUTH_TOKEN_PATH={place}" for place in config["file_mounts"]]
    assert any(path in options for path in mounted)
    assert "RAY_AUTH_TOKEN=" not in options


def loose(options):
    """What the container leaves open: each line is missing, or a place that must be written."""
    needed = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    missing = [option for option in needed if option not in options]
    places = [words.partition(":")[2] for words in options if words.startswith("-v ")]
    places += [words.split()[1].partition(":")[0] for words in options if "--tmpfs" in words]
    return missing + [path for path in ("/tmp", "/home/ray", "/store") if path not in places]


def test_the_container_writes_tmp_home_and_store_alone(config):
    options = config["docker"]["run_options"]
    assert loose(options) == []
    for option in options:
        gone = {"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"}
        if option in gone or option.startswith(("-v ", "--tmpfs")):
            assert len(loose([other for other in options if other != option])) == 1


def test_the_folder_behind_tmp_is_made_before_the_container(config):
    (place,) = [words for words in config["docker"]["run_options"] if words.endswith(":/tmp")]
    folder = place.removeprefix("-v ").partition(":")[0]
    assert f"sudo install -d -m 1777 {folder}" in config["initialization_commands"]
