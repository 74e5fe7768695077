"""The part of KubeRay's `ray.io/v1` resources that a manifest here may use, as a JSON Schema.

Fields and types are those of the operator's published reference for v1.5.1; the pod templates are
checked against Kubernetes' own schema instead. An unknown field is an error, as it is for
`kubectl apply --validate=strict`.
"""

import copy
from typing import Any

COUNT = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
POD = {"type": "object", "required": ["spec"]}


def _record(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


METADATA = _record(
    ["name"],
    # The operator appends to the name what Kubernetes' 63 characters must hold as well.
    name={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47},
    namespace={"type": "string"},
    labels=TEXTS,
    annotations=TEXTS,
)

HEAD_GROUP = _record(
    ["rayStartParams", "template"],
    rayStartParams=TEXTS,
    resources=TEXTS,
    labels=TEXTS,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    enableIngress={"type": "boolean"},
    template=POD,
)

WORKER_GROUP = _record(
    ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
    groupName={"type": "string"},
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts={"type": "integer", "minimum": 1},
    idleTimeoutSeconds=COUNT,
    rayStartParams=TEXTS,
    resources=TEXTS,
    labels=TEXTS,
    template=POD,
)

CLUSTER_SPEC = _record(
    ["headGroupSpec", "workerGroupSpecs", "rayVersion"],
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=_record(
        [],
        mode={"enum": ["disabled", "token"]},
        secretName={"type": "string"},
        enableK8sTokenAuth={"type": "boolean"},
    ),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=_record(
        [],
        version={"enum": ["v1", "v2"]},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        idleTimeoutSeconds=COUNT,
        securityContext={"type": "object"},
        volumeMounts={"type": "array", "items": {"type": "object"}},
    ),
    headGroupSpec=HEAD_GROUP,
    workerGroupSpecs={"type": "array", "items": WORKER_GROUP},
)

RAY_CLUSTER = _record(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=METADATA,
    spec=CLUSTER_SPEC,
)

RAY_JOB = _record(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=METADATA,
    spec=_record(
        ["entrypoint", "rayClusterSpec"],
        entrypoint={"type": "string"},
        entrypointNumCpus={"type": "number"},
        entrypointResources={"type": "string"},
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        backoffLimit=COUNT,
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        runtimeEnvYAML={"type": "string"},
        jobId={"type": "string"},
        metadata=TEXTS,
        submitterPodTemplate=POD,
        rayClusterSpec=CLUSTER_SPEC,
    ),
)

SCHEMAS = {"RayCluster": RAY_CLUSTER, "RayJob": RAY_JOB}


def cluster_spec(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the cluster that a manifest of either kind describes."""
    spec = manifest["spec"]
    return spec if manifest["kind"] == "RayCluster" else spec["rayClusterSpec"]


def groups(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return head and worker groups."""
    spec = cluster_spec(manifest)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pod of each group, and the submitter's, as the operator completes them.

    Beside the head it runs the autoscaler, with these options, and before each worker a container
    with the worker's own security context, variables and mounts.
    """
    spec = cluster_spec(manifest)
    found = [copy.deepcopy(group["template"]["spec"]) for group in groups(manifest)]
    options = spec["autoscalerOptions"]
    image = found[0]["containers"][0]["image"]
    autoscaler = {name: options.get(name) for name in ("securityContext", "volumeMounts")}
    logs = {"name": "ray-logs", "mountPath": "/tmp/ray"}
    autoscaler["volumeMounts"] = [*(autoscaler["volumeMounts"] or []), logs]
    found[0]["containers"].append({"name": "autoscaler", "image": image, **autoscaler})
    found[0]["containers"][0]["volumeMounts"].append(logs)
    found[0]["volumes"].append({"name": "ray-logs", "emptyDir": {}})
    submitter = manifest["spec"].get("submitterPodTemplate")
    return found if submitter is None else [*found, submitter["spec"]]
