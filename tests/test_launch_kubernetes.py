"""Manifests: what a strict check of the schemas says of them, and of the same with a typo."""

import copy
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from jaxvision.errors import ConfigError
from launch import kubernetes
from launch.backends import Settings
from launch.command import Command, Resources

VERSION = kubernetes_validate.latest_version()
OPTIONS = {"image": "registry.example/jaxvision:1", "claim": "runs", "mount": "/data"}
NAME = "learning_rate=0.01,texts=$(HOME)-seed3-0a1b2c3d"
JOB_SET = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "metadata": {"name", "namespace", "labels", "annotations"},
    "spec": {
        *("replicatedJobs", "network", "successPolicy", "failurePolicy", "startupPolicy", "suspend", "coordinator"),
        *("managedBy", "ttlSecondsAfterFinished", "volumeClaimPolicies"),
    },
    "spec.network": {"enableDNSHostnames", "subdomain", "publishNotReadyAddresses"},
    "spec.failurePolicy": {"maxRestarts", "restartStrategy", "rules"},
    "spec.replicatedJobs": {"name", "groupName", "template", "replicas", "dependsOn"},
    "spec.replicatedJobs.template": {"metadata", "spec"},
}
"""Fields of a JobSet of jobset.x-k8s.io/v1alpha2, by place; what is in the template's spec is a Job's."""


def command(**resources):
    workdir = Path("/data/sweeps/rates") / NAME
    arguments = ("/here/python", "-m", "jaxvision.main", f"--workdir={workdir}", "--config.text=$(HOME) $HOME 'a'")
    return Command(NAME, arguments, workdir, {"JAX_PLATFORMS": "cuda"}, Resources(**resources))


def made(told=None, **resources):
    return kubernetes.manifests(command(**resources), told or Settings(OPTIONS, retries=2))


def check(manifest):
    """Raises ValidationError for a manifest that is none; a JobSet's own fields are compared with the list above."""
    if manifest["kind"] != "JobSet":
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        return
    for place, known in JOB_SET.items():
        part = manifest
        for step in filter(None, place.split(".")):
            part = part[step][0] if step == "replicatedJobs" else part[step]
        if unknown := set(part) - known:
            raise kubernetes_validate.ValidationError(ValueError(f"{place}: {unknown}"), VERSION)
    for part in manifest["spec"]["replicatedJobs"]:
        kubernetes_validate.validate(kubernetes.as_job(part), VERSION, strict=True)


CASES = {
    "one machine": {"cores": 4, "memory": 8.0},
    "two machines": {"nodes": 2, "gpus": 8},
    "three groups": {"nodes": 2, "groups": 3, "gpus": 4},
}
KINDS = {"one machine": ["Job"], "two machines": ["Service", "Job"], "three groups": ["JobSet"]}


@pytest.mark.parametrize("case", CASES)
def test_manifests_are_what_the_schemas_say(case):
    found = made(**CASES[case])
    assert [each["kind"] for each in found] == KINDS[case]
    for manifest in found:
        check(manifest)
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,44}[a-z0-9])?", manifest["metadata"]["name"])
        assert manifest["metadata"]["name"].endswith("0a1b2c3d")


def places(value, place=()):
    """The place of every mapping inside a manifest, but those whose keys are free."""
    if isinstance(value, dict):
        if not place or place[-1] not in ("labels", "selector", "requests", "limits", "nodeSelector"):
            yield place
        for key, part in value.items():
            yield from places(part, (*place, key))
    if isinstance(value, list):
        for index, part in enumerate(value):
            yield from places(part, (*place, index))


ALL_PLACES = [
    (case, number, place)
    for case in CASES
    for number, manifest in enumerate(made(**CASES[case]))
    for place in places(manifest)
]


@pytest.mark.parametrize(("case", "number", "place"), ALL_PLACES)
def test_a_typo_anywhere_fails(case, number, place):
    manifest = copy.deepcopy(made(**CASES[case])[number])
    part = manifest
    for step in place:
        part = part[step]
    key = next(iter(part))
    part[f"{key}x"] = part[key]
    with pytest.raises(kubernetes_validate.ValidationError):
        check(manifest)


def test_the_program_refuses_what_the_schemas_refuse():
    manifest = made(nodes=2)[1]
    kubernetes.check(manifest)
    manifest["spec"]["template"]["spec"]["restartPolicies"] = "Never"
    with pytest.raises(ConfigError, match=r"would not take the Job: spec\.template\.spec: .*restartPolicies"):
        kubernetes.check(manifest)
    manifest = made(nodes=2, groups=2)[0]
    manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["completion"] = 2
    with pytest.raises(ConfigError, match="completion"):
        kubernetes.check(manifest)


def test_pods_of_a_job_meet_at_the_first():
    service, job = made(nodes=2)
    name = job["metadata"]["name"]
    pod = job["spec"]["template"]["spec"]
    assert (service["metadata"]["name"], pod["subdomain"]) == (name, name)
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    *given, coordinator, processes, process = pod["containers"][0]["command"]
    assert coordinator == f"--coordinator={name}-0.{name}:8476"
    assert (processes, process) == ("--processes=2", "--process=$(JOB_COMPLETION_INDEX)")
    assert given == ["python", *command().arguments[1:3], f"--workdir=/data/sweeps/rates/{NAME.replace('$', '$$')}",
                     "--config.text=$$(HOME) $HOME 'a'"]  # fmt: skip


def test_processes_of_a_job_set_are_numbered_over_its_groups():
    (job_set,) = made(nodes=2, groups=3)
    name = job_set["metadata"]["name"]
    (group,) = job_set["spec"]["replicatedJobs"]
    assert (group["replicas"], group["template"]["spec"]["completions"]) == (3, 2)
    (container,) = group["template"]["spec"]["template"]["spec"]["containers"]
    of_pod = [text.replace("$$(", "$(") for text in container["command"]]  # as Kubernetes does
    of_pod = [*of_pod[:4], "printf", r"%s\n", *of_pod[4:]]
    numbers = []
    for index in range(6):
        variables = {"JOB_INDEX": str(index // 2), "JOB_COMPLETION_INDEX": str(index % 2), "HOME": "/root"}
        lines = subprocess.run(of_pod, env=variables, capture_output=True, text=True, check=True).stdout.splitlines()
        assert lines[:-3] == ["python", *command().arguments[1:]]
        assert lines[-3:-1] == [f"--coordinator={name}-group-0-0.{name}:8476", "--processes=6"]
        numbers.append(lines[-1])
    assert numbers == [f"--process={number}" for number in range(6)]


def test_an_interruption_is_no_failure():
    rules = made()[0]["spec"]["podFailurePolicy"]["rules"]
    assert all(rule["action"] == "Ignore" for rule in rules)
    assert rules[1]["onExitCodes"]["values"] == [75]


def test_the_file_has_what_is_not_done(tmp_path):
    told = Settings({**OPTIONS, "mount": str(tmp_path), "selector": "a/b=c,d=e", "namespace": "vision"}, say=print)
    folder = tmp_path / "sweep"
    folder.mkdir()
    runs = [command()._replace(name=name, workdir=folder / name) for name in ("a", "b")]
    kubernetes.start(runs, folder, told)
    found = list(yaml.safe_load_all((folder / kubernetes.FILE).read_text()))
    assert [each["metadata"]["name"] for each in found] == ["a", "b"]
    assert found[0]["spec"]["template"]["spec"]["nodeSelector"] == {"a/b": "c", "d": "e"}
    assert found[0]["metadata"]["namespace"] == "vision"
    (folder / "a").mkdir()
    (folder / "a/lease.json").write_text(
        '{"state": "done", "host": "h", "process": 1, "born": "", "job": {}, "time": ""}'
    )
    kubernetes.start(runs, folder, told)
    assert [each["metadata"]["name"] for each in yaml.safe_load_all((folder / kubernetes.FILE).read_text())] == ["b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mount": "/elsewhere"}, "must be in it, so that pods reach it"),
        ({"selector": "gpu"}, "it must be LABEL=VALUE,LABEL=VALUE"),
    ],
)
def test_bad_options(tmp_path, options, message):
    told = Settings({**OPTIONS, "mount": str(tmp_path.parent), **options}, say=print)
    with pytest.raises(ConfigError, match=message):
        kubernetes.start([command()], tmp_path, told)
    assert not (tmp_path / kubernetes.FILE).exists()
