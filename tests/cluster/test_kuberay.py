"""The Kubernetes manifests are what KubeRay, Kubernetes and Ray's autoscaler read."""

import copy
import shlex

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray._private import ray_constants
from ray.autoscaler._private.kuberay import autoscaling_config

from namd.cli.main import build_parser
from namd.distributed.session import DRIVER_RESOURCE
from tests.cluster.kuberay import SCHEMAS, cluster_spec, groups

KUBERNETES = "1.34"
MANIFESTS = ("raycluster.yaml", "rayjob.yaml")
IN_START_PARAMETERS = {"num-cpus", "num-gpus", "memory", "resources"}


@pytest.fixture(params=MANIFESTS)
def manifest(request, cluster_folder):
    return yaml.safe_load((cluster_folder / request.param).read_text(encoding="utf-8"))


@pytest.fixture
def rayjob(cluster_folder):
    return yaml.safe_load((cluster_folder / "rayjob.yaml").read_text(encoding="utf-8"))


def check(manifest):
    jsonschema.Draft202012Validator(SCHEMAS[manifest["kind"]]).validate(manifest)


def check_pod(group):
    pod = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "template"},
        "template": group["template"],
    }
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def autoscaling(manifest):
    """What Ray's autoscaler makes of it; it checks its own schema on the way."""
    spec = cluster_spec(manifest)
    resource = {"metadata": {"name": "namd", "namespace": "default"}, "spec": spec}
    return autoscaling_config._derive_autoscaling_config_from_ray_cr(resource)


def test_the_operator_knows_every_field(manifest):
    check(manifest)


def test_a_misspelt_field_would_be_seen(manifest):
    wrong = copy.deepcopy(manifest)
    cluster_spec(wrong)["enableAutoscaling"] = True
    with pytest.raises(jsonschema.ValidationError, match="enableAutoscaling"):
        check(wrong)


def test_kubernetes_accepts_every_pod(manifest):
    for group in groups(manifest):
        check_pod(group)


def test_a_wrong_pod_would_be_seen(manifest):
    wrong = copy.deepcopy(groups(manifest)[0])
    wrong["template"]["spec"]["containers"][0]["securityContext"]["privilegeEscalation"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        check_pod(wrong)


def test_the_store_is_a_claim_that_every_pod_mounts(manifest, cluster_folder):
    claim = yaml.safe_load((cluster_folder / "store.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in groups(manifest):
        pod = group["template"]["spec"]
        claims = {
            volume["persistentVolumeClaim"]["claimName"]: volume["name"]
            for volume in pod["volumes"]
            if "persistentVolumeClaim" in volume
        }
        mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
        environment = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
        assert mounts[claims[claim["metadata"]["name"]]] == environment["NAMD_STORE"]


def test_the_autoscaler_reads_the_groups(manifest):
    config = autoscaling(manifest)
    nodes = config["available_node_types"]
    head = nodes[config["head_node_type"]]["resources"]
    assert head["CPU"] == 0
    assert head[DRIVER_RESOURCE] >= 1
    assert nodes["gpu"]["resources"]["GPU"] == 1
    assert nodes["gpu"]["max_workers"] > nodes["gpu"]["min_workers"] >= 1
    assert DRIVER_RESOURCE not in nodes["gpu"]["resources"]


def test_resources_that_the_autoscaler_cannot_read_would_be_seen(manifest):
    wrong = copy.deepcopy(manifest)
    gpu = cluster_spec(wrong)["workerGroupSpecs"][0]
    for kind in ("requests", "limits"):
        del gpu["template"]["spec"]["containers"][0]["resources"][kind]["cpu"]
    with pytest.raises(ValueError, match="CPU"):
        autoscaling(wrong)


def twice(group):
    """Resources are told in one place; the operator refuses a group that has both."""
    return bool(group.get("resources")) and bool(IN_START_PARAMETERS & set(group["rayStartParams"]))


def test_no_group_tells_its_resources_twice(manifest):
    assert not any(twice(group) for group in groups(manifest))
    assert twice({"resources": {"CPU": "0"}, "rayStartParams": {"num-cpus": "0"}})


def test_the_ray_version_is_the_locked_one(manifest, locked_ray):
    assert cluster_spec(manifest)["rayVersion"] == locked_ray


def test_the_cluster_asks_for_a_token_and_holds_none(manifest):
    assert cluster_spec(manifest)["authOptions"] == {"mode": "token"}
    for group in groups(manifest):
        names = {entry["name"] for entry in group["template"]["spec"]["containers"][0]["env"]}
        assert not any("TOKEN" in name or "KEY" in name for name in names)


def test_pods_run_as_nobody_in_particular(manifest):
    for group in groups(manifest):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_workers_have_the_time_to_drain(manifest):
    """Ray's time to drain a node fits into the pod's grace, or the pod is killed amid it."""
    name = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert hasattr(ray_constants, name)
    for group in cluster_spec(manifest)["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
        assert 60 <= int(environment[name]) < pod["terminationGracePeriodSeconds"]


def test_the_job_is_a_command_that_resumes(rayjob):
    words = shlex.split(rayjob["spec"]["entrypoint"])
    assert words[0] == "namd"
    parsed = build_parser(words[1:]).parse_args(words[1:])
    assert parsed.resume
    assert parsed.address == "auto"
    mounts = groups(rayjob)[0]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert any(parsed.file.startswith(mount["mountPath"] + "/") for mount in mounts)
    assert any(parsed.store == mount["mountPath"] for mount in mounts)


def test_the_jobs_cluster_goes_and_the_store_stays(rayjob, cluster_folder):
    spec = rayjob["spec"]
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0
    assert "PersistentVolumeClaim" not in (cluster_folder / "rayjob.yaml").read_text("utf-8")
