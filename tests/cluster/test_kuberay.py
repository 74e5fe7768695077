"""The Kubernetes manifests are what KubeRay, Kubernetes and Ray's autoscaler read."""

import copy
import shlex

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray._private import ray_constants
from ray.autoscaler._private.kuberay import autoscaling_config, node_provider

from namd.cli.main import build_parser
from namd.distributed.session import DRIVER_RESOURCE
from tests.cluster.kuberay import SCHEMAS, cluster_spec, groups, pods

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


def check_pod(spec):
    pod = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "template"},
        "template": {"spec": spec},
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
    for pod in pods(manifest):
        check_pod(pod)


def test_a_wrong_pod_would_be_seen(manifest):
    wrong = pods(manifest)[0]
    wrong["containers"][0]["securityContext"]["privilegeEscalation"] = False
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
    """Resources are stated in one place; the operator refuses a group that has both."""
    return bool(group.get("resources")) and bool(IN_START_PARAMETERS & set(group["rayStartParams"]))


def test_no_group_states_its_resources_twice(manifest):
    assert not any(twice(group) for group in groups(manifest))
    assert twice({"resources": {"CPU": "0"}, "rayStartParams": {"num-cpus": "0"}})


def test_the_ray_version_is_the_locked_one(manifest, locked_ray):
    assert cluster_spec(manifest)["rayVersion"] == locked_ray


def test_the_cluster_asks_for_a_token_and_holds_none(manifest):
    assert cluster_spec(manifest)["authOptions"] == {"mode": "token"}
    for group in groups(manifest):
        names = {entry["name"] for entry in group["template"]["spec"]["containers"][0]["env"]}
        assert not any("TOKEN" in name or "KEY" in name for name in names)


WRITTEN = {"/tmp": "all that Ray, torch and tempfile write", "/home/ray": "caches"}
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def loose(pod):
    """What a pod leaves open, in words."""
    found = [] if pod["securityContext"].get("runAsNonRoot") is True else ["may be root"]
    if pod.get("automountServiceAccountToken") is not False:
        found.append("every container gets the service account")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in pod["containers"]:
        name, context = container["name"], container.get("securityContext") or {}
        if context.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name} may escalate")
        if context.get("capabilities") != {"drop": ["ALL"]}:
            found.append(f"{name} keeps capabilities")
        if context.get("readOnlyRootFilesystem") is not True:
            found.append(f"{name} writes its root")
        mounted = {
            mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]
        }
        if (SERVICE_ACCOUNT in mounted) != (name == "autoscaler"):
            found.append(f"{name} and the service account")
        needed = ["/tmp"] if name == "autoscaler" else list(WRITTEN)
        found += [
            f"{name} cannot write {p}" for p in needed if "emptyDir" not in mounted.get(p, {})
        ]
    return found


def test_pods_run_with_no_more_than_they_need(manifest):
    for pod in pods(manifest):
        assert loose(pod) == []


@pytest.mark.parametrize("key", ["readOnlyRootFilesystem", "allowPrivilegeEscalation"])
@pytest.mark.parametrize("container", [0, 1])
def test_a_looser_pod_would_be_seen(manifest, key, container):
    wrong = pods(manifest)[0]
    del wrong["containers"][container]["securityContext"][key]
    assert len(loose(wrong)) == 1
    wrong["automountServiceAccountToken"] = True
    wrong["containers"][0]["volumeMounts"].pop(1)
    assert len(loose(wrong)) == 3


def test_the_autoscaler_finds_its_token_where_ray_reads_it(manifest):
    assert f"{SERVICE_ACCOUNT}/token" == node_provider.IN_CLUSTER_TOKEN_PATH
    assert f"{SERVICE_ACCOUNT}/ca.crt" == node_provider.IN_CLUSTER_CA_CERT_PATH
    (account,) = [volume for volume in pods(manifest)[0]["volumes"] if "projected" in volume]
    token, certificate, namespace = account["projected"]["sources"]
    assert token["serviceAccountToken"]["path"] == "token"
    assert token["serviceAccountToken"]["expirationSeconds"] >= 600
    assert node_provider.TOKEN_REFRESH_PERIOD.total_seconds() <= 600
    assert certificate["configMap"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
    assert namespace["downwardAPI"]["items"][0]["path"] == "namespace"


def test_what_hands_the_job_over_runs_the_heads_image(rayjob):
    (submitter,) = pods(rayjob)[-1]["containers"]
    assert submitter["image"] == pods(rayjob)[0]["containers"][0]["image"]
    assert "command" not in submitter
    assert pods(rayjob)[-1]["restartPolicy"] == "Never"


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
