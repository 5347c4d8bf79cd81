"""The GKE script and its JobSet, on stand-ins for docker and kubectl."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch.conftest import FakePrograms

# From the public references of JobSet v1alpha2, batch/v1 Job and core/v1 Pod: the fields that a
# training job can use, with their types; '!' marks what must be there, [x] a list of x.
STRINGS = {"*": str}
CONTAINER = {
  "name!": str,
  "image!": str,
  "args": [str],
  "env": [
    {
      "name!": str,
      "value": str,
      "valueFrom": {"fieldRef": {"apiVersion": str, "fieldPath!": str}},
    }
  ],
  "resources": {"limits": {"*": int}, "requests": {"*": int}},
  "volumeMounts": [{"name!": str, "mountPath!": str, "readOnly": bool}],
}
POD = {
  "restartPolicy!": str,
  "terminationGracePeriodSeconds": int,
  "nodeSelector": STRINGS,
  "containers!": [CONTAINER],
  "volumes": [
    {"name!": str, "persistentVolumeClaim": {"claimName!": str, "readOnly": bool}},
  ],
}
POD_FAILURE_RULE = {
  "action!": str,
  "onExitCodes": {"containerName": str, "operator!": str, "values!": [int]},
}
JOB = {
  "completionMode": str,
  "completions": int,
  "parallelism": int,
  "backoffLimit": int,
  "podFailurePolicy": {"rules!": [POD_FAILURE_RULE]},
  "template!": {"metadata": {"annotations": STRINGS}, "spec!": POD},
}
JOBSET = {
  "apiVersion!": str,
  "kind!": str,
  "metadata!": {"name!": str, "annotations": STRINGS, "labels": STRINGS},
  "spec!": {
    "network": {"enableDNSHostnames": bool, "subdomain": str, "publishNotReadyAddresses": bool},
    "failurePolicy": {
      "maxRestarts": int,
      "restartStrategy": str,
      "rules": [
        {
          "name!": str,
          "action!": str,
          "onJobFailureReasons": [str],
          "targetReplicatedJobs": [str],
        }
      ],
    },
    "replicatedJobs!": [{"name!": str, "replicas": int, "template!": {"spec!": JOB}}],
  },
}

ARGUMENTS = ["--config=configs/cuhk03.py", '--workdir=/storage/a "b" \\ $(HOME) & ${NAME}']
GPU = ["--image=registry/m:1", "--claim=reid", "--accelerator=nvidia-l4", "--nodes=3"]
TPU = [*GPU[:2], "--accelerator=tpu-v5-lite-podslice", "--topology=4x4", "--nodes=4"]


def _violations(value: Any, schema: Any, path: str) -> list[str]:
  """Returns where `value` departs from a schema written as above."""
  if isinstance(schema, list):
    if not isinstance(value, list):
      return [f"{path}: not a list"]
    return [v for i, item in enumerate(value) for v in _violations(item, schema[0], f"{path}[{i}]")]
  if not isinstance(schema, dict):
    return [] if type(value) is schema else [f"{path}: {value!r} is not of type {schema.__name__}"]
  if not isinstance(value, dict):
    return [f"{path}: not a group of fields"]
  known = {name.rstrip("!"): kind for name, kind in schema.items()}
  found = [f"{path}.{n}: missing" for n in known if f"{n}!" in schema and n not in value]
  for name, item in value.items():
    kind = known.get(name, known.get("*"))
    where = f"{path}.{name}"
    found += [f"{where}: no such field"] if kind is None else _violations(item, kind, where)
  return found


def _job(jobset: dict[str, Any]) -> dict[str, Any]:
  return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def _print(launch: Path, programs: FakePrograms, options: list[str]) -> dict[str, Any]:
  result = programs.run(launch / "gke.sh", "--print", *options, "--", *ARGUMENTS)
  assert result.returncode == 0, result.stderr
  return yaml.safe_load(result.stdout)


@pytest.mark.parametrize("options", [GPU, TPU], ids=["gpu", "tpu"])
def test_the_job_set_fits_its_schema(launch: Path, programs: FakePrograms, options: list[str]):
  jobset = _print(launch, programs, options)
  assert _violations(jobset, JOBSET, "") == []
  assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  # Kubernetes puts a variable in the place of $(NAME), and $(NAME) in that of $$(NAME).
  arguments = _job(jobset)["template"]["spec"]["containers"][0]["args"]
  assert arguments == [argument.replace("$(", "$$(") for argument in ARGUMENTS]


def test_gpus(launch: Path, programs: FakePrograms):
  job = _job(_print(launch, programs, [*GPU, "--name=run", "--per-node=2"]))
  assert (job["completions"], job["parallelism"], job["backoffLimit"]) == (3, 3, 0)
  pod = job["template"]["spec"]
  assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
  container = pod["containers"][0]
  assert container["resources"] == {"limits": {"nvidia.com/gpu": 2}}
  values = {variable["name"]: variable.get("value") for variable in container["env"]}
  assert values == {
    "JAX_COORDINATOR_ADDRESS": "run-worker-0-0.run:12355",
    "JAX_NUM_PROCESSES": "3",
    "JAX_PROCESS_ID": None,
  }


def test_tpus(launch: Path, programs: FakePrograms):
  jobset = _print(launch, programs, TPU)
  assert jobset["metadata"]["annotations"] == {
    "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
  }
  pod = _job(jobset)["template"]["spec"]
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
    "cloud.google.com/gke-tpu-topology": "4x4",
  }
  assert pod["containers"][0]["resources"] == {"limits": {"google.com/tpu": 4}}
  assert "env" not in pod["containers"][0]


KUBECTL = """
case $* in
  *apply*) cat >"$STATE/applied" ;;
  *logs*) echo 'step 1'; touch "$STATE/shown" ;;
  *get*) [ -e "$STATE/shown" ] && echo -n {state} || true ;;
esac
"""


@pytest.mark.parametrize(("state", "exit_code"), [("Completed", 0), ("Failed", 1)])
def test_commands(launch: Path, programs: FakePrograms, state: str, exit_code: int):
  programs.add("docker")
  programs.add("kubectl", KUBECTL.replace("{state}", state))
  result = programs.run(launch / "gke.sh", *TPU, "--namespace=reid", "--", *ARGUMENTS)
  assert result.returncode == exit_code, result.stderr
  assert "step 1" in result.stdout
  kubectl = ["kubectl", "--namespace=reid"]
  look_up = [*kubectl, "get", "jobset", "magnifier", "--output=jsonpath={.status.terminalState}"]
  selector = (
    "--selector=jobset.sigs.k8s.io/jobset-name=magnifier,batch.kubernetes.io/job-completion-index=0"
  )
  assert programs.calls == [
    [
      "docker",
      "build",
      "--file=launch/Dockerfile",
      "--build-arg=ACCELERATOR=tpu",
      "--tag=registry/m:1",
      ".",
    ],
    ["docker", "push", "registry/m:1"],
    [*kubectl, "apply", "--filename=-"],
    look_up,
    [*kubectl, "logs", "--follow", "--tail=-1", selector],
    look_up,
  ]
  applied = yaml.safe_load((programs.folder / "applied").read_text())
  assert applied == _print(launch, programs, TPU)


def test_an_image_that_is_there_is_not_built(launch: Path, programs: FakePrograms):
  programs.add("docker")
  programs.add("kubectl", KUBECTL.replace("{state}", "Completed"))
  programs.run(launch / "gke.sh", *GPU, "--no-build", "--", *ARGUMENTS)
  assert {call[0] for call in programs.calls} == {"kubectl"}


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([*GPU[1:], "--", "x"], "--image: missing"),
    ([GPU[0], GPU[2], "--", "x"], "--claim: missing"),
    ([*GPU[:2], "--", "x"], "--accelerator: missing"),
    ([*TPU[:3], "--", "x"], "--topology: missing"),
    ([*GPU, "--nodes=0", "--", "x"], "--nodes: must be a whole number from 1, got '0'"),
    (GPU, "give main's arguments after --"),
    (["--config=c"], "unknown option '--config=c'"),
  ],
)
def test_bad_input_is_one_line(
  launch: Path, programs: FakePrograms, arguments: list[str], message: str
):
  programs.add("docker")
  programs.add("kubectl")
  result = programs.run(launch / "gke.sh", *arguments)
  assert result.returncode == 2
  assert message in result.stderr
  assert len(result.stderr.splitlines()) == 1
  assert programs.calls == []


def test_the_image_starts_main_with_what_the_repository_has(launch: Path, repository: Path):
  instructions = [
    line.split() for line in (launch / "Dockerfile").read_text().splitlines() if line[:1].isupper()
  ]
  for instruction in instructions:
    if instruction[0] == "COPY":
      assert (repository / instruction[1]).exists()
  assert instructions[-1][0] == "ENTRYPOINT"
  assert "magnifier_jax.main" in (launch / "Dockerfile").read_text()
