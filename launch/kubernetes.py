"""Runs as manifests of Kubernetes, written to a file for `kubectl apply`: an Indexed Job a run, with a headless Service.

The pods of a run find each other by the name that the Service gives to the first of them. A run on several groups of machines
is a JobSet, which needs its controller in the cluster. Paths are the same in a pod as here: a volume claim is mounted.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvision.errors import ConfigError, write_atomically
from jaxvision.machine.signals import INTERRUPTED
from launch.backends import Settings
from launch.command import Command
from launch.state import state

PACKAGE = None
OPTIONS: Mapping[str, str] = {
    "image": "the container image, in which jaxvision is installed",
    "claim": "the persistent volume claim that has the workdirs",
    "mount": "where the claim is mounted; the folder of the plan is in it, at the same path as here",
    "namespace": "of all objects",
    "python": "the interpreter in the image (python)",
    "device": "the resource that --gpus counts (nvidia.com/gpu; google.com/tpu for TPU chips)",
    "selector": "labels that a node must have, as LABEL=VALUE,LABEL=VALUE",
}
NEEDED = ("image", "claim", "mount")
USES = ("nodes", "groups", "gpus", "cores", "memory")
FILE = "kubernetes.yaml"
PORT = 8476
"""The port at which the first process waits for the others."""
SECONDS_TO_SAVE = 120
"""How long a pod that is evicted has to save a checkpoint."""
SECONDS_KEPT = 600
"""How long an ended Job stays; `kubectl apply` then starts it anew if its run is not done."""
LONGEST = 40
"""Characters of an object's name: with what Kubernetes appends, a pod's host name has at most 63."""
GROUP = "group"
"""The name of the Jobs of a JobSet."""

Manifest = dict[str, Any]


def start(runs: Sequence[Command], folder: Path, told: Settings) -> int:
    """Writes the manifests of what is neither done nor running, and says how to apply them.

    Raises:
      ConfigError: for a folder outside the mount, or an option that makes a manifest that Kubernetes would not take.
    """
    mount = Path(told.options["mount"])
    if mount not in folder.parents:
        raise ConfigError(f"--option mount={mount}: the plan's folder {folder} must be in it, so that pods reach it")
    wanted = [run for run in runs if state(run.workdir).to_start]
    found = [manifest for run in wanted for manifest in manifests(run, told)]
    for manifest in found:
        check(manifest)
    write(found, folder / FILE)
    told.say(f"{folder / FILE} has {len(wanted)} runs: kubectl apply -f {folder / FILE}")
    return 0


def write(found: Sequence[Manifest], file: Path) -> None:
    """Writes manifests as one file of YAML."""
    import yaml

    write_atomically(file, yaml.safe_dump_all(found, sort_keys=False, width=1_000))


def manifests(run: Command, told: Settings) -> list[Manifest]:
    """The objects of a run: a JobSet where it is on several groups, else a Job, with a Service where it has several pods."""
    if run.resources.groups > 1:
        return [job_set(run, told)]
    return [*([service(run, told)] if run.resources.nodes > 1 else []), job(run, told)]


def metadata(run: Command, told: Settings) -> Manifest:
    """Name, namespace and labels of the objects of a run."""
    namespace = {"namespace": told.options["namespace"]} if "namespace" in told.options else {}
    return {"name": name(run), **namespace, "labels": {"app.kubernetes.io/name": "jaxvision"}}


def name(run: Command) -> str:
    """The name of a run's objects: the end of its own, which has the hash, in the letters that names of hosts have."""
    plain = re.sub(r"[^a-z0-9]+", "-", run.name.lower())[-LONGEST:].strip("-")
    return plain if plain[:1].isalpha() else f"run-{plain}"


def service(run: Command, told: Settings) -> Manifest:
    """The headless Service that gives the pods of a Job their names, before they are ready, too."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(run, told),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": name(run)},
            "ports": [{"name": "coordinator", "port": PORT}],
        },
    }


def job(run: Command, told: Settings) -> Manifest:
    """The Indexed Job of a run on one group of machines; if one of its pods fails, so do all, and that is one try."""
    spec = job_spec(run, told, "$(JOB_COMPLETION_INDEX)", f"{name(run)}-0.{name(run)}", shell=False)
    spec["backoffLimit"] = told.retries * run.resources.nodes
    spec["ttlSecondsAfterFinished"] = SECONDS_KEPT
    spec["template"]["spec"]["subdomain"] = name(run)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata(run, told), "spec": spec}


def job_set(run: Command, told: Settings) -> Manifest:
    """The JobSet of a run on several groups of machines; a failed Job restarts all of them."""
    process = f"$(({run.resources.nodes} * JOB_INDEX + JOB_COMPLETION_INDEX))"
    spec = job_spec(run, told, process, f"{name(run)}-{GROUP}-0-0.{name(run)}", shell=True)
    spec["backoffLimit"] = 0
    index = {"fieldRef": {"fieldPath": "metadata.labels['jobset.sigs.k8s.io/job-index']"}}
    spec["template"]["spec"]["containers"][0]["env"].append({"name": "JOB_INDEX", "valueFrom": index})
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata(run, told),
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": name(run), "publishNotReadyAddresses": True},
            "failurePolicy": {"maxRestarts": told.retries},
            "ttlSecondsAfterFinished": SECONDS_KEPT,
            "replicatedJobs": [{"name": GROUP, "replicas": run.resources.groups, "template": {"spec": spec}}],
        },
    }


def job_spec(run: Command, told: Settings, process: str, host: str, *, shell: bool) -> Manifest:
    """The part that a Job and the Jobs of a JobSet share: status 75, and an eviction, count as no failure.

    Args:
      run: to start.
      told: options.
      process: what stands for the number of the process, for Kubernetes or for a shell.
      host: of the first process.
      shell: whether a shell computes the number.
    """
    ignored = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [INTERRUPTED]}},
    ]
    return {
        "completionMode": "Indexed",
        "completions": run.resources.nodes,
        "parallelism": run.resources.nodes,
        "podFailurePolicy": {"rules": ignored},
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/name": "jaxvision"}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": SECONDS_TO_SAVE,
                **({"nodeSelector": selector(told.options["selector"])} if "selector" in told.options else {}),
                "containers": [container(run, told, arguments(run, told, process, host, shell=shell))],
                "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": told.options["claim"]}}],
            },
        },
    }


def arguments(run: Command, told: Settings, process: str, host: str, *, shell: bool) -> list[str]:
    """The command of a pod; the arguments of `job_spec`."""
    given = [told.options.get("python", "python"), *run.arguments[1:]]
    meeting = [f"--coordinator={host}:{PORT}", f"--processes={run.resources.machines}", f"--process={process}"]
    plain = [text.replace("$(", "$$(") for text in given]  # Kubernetes puts variables in place of $(NAME)
    if run.resources.machines == 1:
        return plain
    if not shell:
        return [*plain, *meeting]
    script = f'exec "$@" {meeting[0]} {meeting[1]} "{meeting[2].replace("$((", "$$((")}"'
    return ["sh", "-c", script, "sh", *plain]


def container(run: Command, told: Settings, command: list[str]) -> Manifest:
    """The one container of a pod."""
    of = run.resources
    amounts = {
        told.options.get("device", "nvidia.com/gpu"): str(of.gpus) if of.gpus else None,
        "cpu": None if of.cores is None else str(of.cores),
        "memory": None if of.memory is None else f"{round(of.memory * 1000)}M",
    }
    amounts = {resource: amount for resource, amount in amounts.items() if amount is not None}
    return {
        "name": "run",
        "image": told.options["image"],
        "command": command,
        "env": [{"name": key, "value": value} for key, value in run.environment.items()],
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "volumeMounts": [{"name": "runs", "mountPath": told.options["mount"]}],
        **({"ports": [{"name": "coordinator", "containerPort": PORT}]} if of.machines > 1 else {}),
    }


def selector(text: str) -> dict[str, str]:
    """The labels of `--option selector`.

    Raises:
      ConfigError: for one without a value.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(label and value for label, _, value in pairs):
        raise ConfigError(f"--option selector={text}: it must be LABEL=VALUE,LABEL=VALUE")
    return {label: value for label, _, value in pairs}


def check(manifest: Manifest) -> None:
    """Checks a manifest strictly, where the extra `kubernetes` is installed; of a JobSet, its Jobs.

    Raises:
      ConfigError: if Kubernetes would not take it; it says what is wrong where.
    """
    if importlib.util.find_spec("kubernetes_validate") is None:
        return
    import kubernetes_validate as checker

    version = checker.latest_version()
    for each in [as_job(part) for part in manifest["spec"]["replicatedJobs"]] if is_set(manifest) else [manifest]:
        try:
            checker.validate(each, version, strict=True)
        except checker.ValidationError as error:
            where = ".".join(map(str, error.absolute_path))
            raise ConfigError(f"Kubernetes would not take the {manifest['kind']}: {where}: {error.message}") from error


def is_set(manifest: Manifest) -> bool:
    """Whether a manifest is of a JobSet."""
    return manifest["kind"] == "JobSet"


def as_job(part: Manifest) -> Manifest:
    """The Job that a JobSet makes of one of its parts."""
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": part["name"]}, **part["template"]}
