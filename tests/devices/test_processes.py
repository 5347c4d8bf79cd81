"""Who the processes of a run are, by flags and by what each scheduler sets."""

import pytest

from magnifier_jax.devices.processes import (
  Launch,
  LaunchError,
  Membership,
  membership_of,
)

SLURM = {
  "SLURM_JOB_ID": "4107",
  "SLURM_STEP_NODELIST": "node[1-2]",
  "SLURM_NTASKS": "8",
  "SLURM_PROCID": "5",
  "SLURM_LOCALID": "1",
  "SLURM_NODEID": "1",
  "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
  "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}
OPENMPI = {
  "OMPI_COMM_WORLD_SIZE": "4",
  "OMPI_COMM_WORLD_RANK": "3",
  "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
  "OMPI_COMM_WORLD_LOCAL_RANK": "1",
  "CUDA_VISIBLE_DEVICES": "",
}
OPENMPI_4 = OPENMPI | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
JAX = {
  "JAX_COORDINATOR_ADDRESS": "host:1234",
  "JAX_NUM_PROCESSES": "2",
  "JAX_PROCESS_ID": "1",
}
EXPLICIT = Launch(coordinator="host:1234", num_processes=2, process_id=1)


@pytest.mark.parametrize(
  "environment",
  [
    {},
    SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
    {name: value for name, value in SLURM.items() if "STEP" not in name},  # the batch script
    OPENMPI | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
    {"TPU_WORKER_HOSTNAMES": "localhost"},
  ],
)
def test_one_process_joins_nothing(environment: dict[str, str]):
  assert membership_of(Launch(), environment) is None


@pytest.mark.parametrize(
  ("launch", "environment"),
  [
    (EXPLICIT, {}),
    (Launch(), JAX),
    (Launch(coordinator="host:1234"), JAX | {"JAX_COORDINATOR_ADDRESS": ""}),
    (EXPLICIT._replace(cluster="none"), SLURM),
    (EXPLICIT, SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}),
    (EXPLICIT._replace(cluster="none"), {"TPU_WORKER_HOSTNAMES": "a,b"}),
  ],
)
def test_explicit(launch: Launch, environment: dict[str, str]):
  assert membership_of(launch, environment) == Membership("host:1234", 2, 1, None, "deactivate")


@pytest.mark.parametrize(
  ("changes", "gpus"),
  [
    ({}, [1]),
    # One process a machine has all of its GPUs.
    ({"SLURM_STEP_TASKS_PER_NODE": "3,1", "SLURM_LOCALID": "0"}, [0, 1, 2, 3]),
    ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, [2, 3]),
    # SLURM has bound each process to its own.
    ({"SLURM_GPUS_PER_TASK": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, [0, 1]),
    ({"CUDA_VISIBLE_DEVICES": "0"}, [0]),
    ({"CUDA_VISIBLE_DEVICES": ""}, None),
  ],
)
def test_slurm(changes: dict[str, str], gpus: list[int] | None):
  # 4107 is 11 more than there are ports to choose from.
  expected = Membership("node1:61451", 8, 5, gpus, "deactivate")
  assert membership_of(Launch(), SLURM | changes) == expected
  assert membership_of(Launch(cluster="slurm"), SLURM | changes) == expected


@pytest.mark.parametrize(
  ("nodes", "first"),
  [
    ("login", "login"),
    ("node001,host2", "node001"),
    ("node[001-015],host2", "node001"),
    ("node[007,009-015]", "node007"),
    ("rack[2-3]n[07-09,12],rack9", "rack2n07"),
    ("gpu-[3-4].cluster", "gpu-3.cluster"),
  ],
)
def test_process_0_is_on_the_first_node(nodes: str, first: str):
  address = membership_of(Launch(), SLURM | {"SLURM_STEP_NODELIST": nodes}).coordinator_address
  assert address == f"{first}:61451"


@pytest.mark.parametrize("environment", [SLURM, OPENMPI_4], ids=["slurm", "openmpi"])
def test_address_and_port_can_be_chosen(environment: dict[str, str]):
  scheduled = membership_of(Launch(), environment).coordinator_address
  chosen = membership_of(Launch(), environment | {"JAX_COORDINATOR_PORT": "1234"})
  assert chosen.coordinator_address == scheduled.rpartition(":")[0] + ":1234"
  chosen = membership_of(Launch(coordinator="host:1234"), environment)
  assert chosen.coordinator_address == "host:1234"


@pytest.mark.parametrize(
  ("uri", "host"),
  [
    ("1531576320.0;tcp://10.96.0.1:34911", "10.96.0.1"),
    ("1531576320.0;tcp://10.96.0.1,10.148.0.1:34911", "10.96.0.1"),
    ("1531576320.0;tcp6://[fe80::b9b,2620:10d::3]:43370", "[fe80::b9b]"),
    ("1531576320.0;tcp://10.96.0.1:34911;tcp6://[fe80::1]:43370", "10.96.0.1"),
  ],
)
def test_openmpi(uri: str, host: str):
  environment = OPENMPI | {"OMPI_MCA_orte_hnp_uri": uri}
  # 1531576320 is 373920 · 4096, and 373920 is 1184 more than a multiple of 4096.
  expected = Membership(f"{host}:62624", 4, 3, None, "deactivate")
  assert membership_of(Launch(), environment) == expected


def test_openmpi_beside_others():
  # mpirun inside a SLURM job: what SLURM started are mpirun's helpers.
  assert membership_of(Launch(), SLURM | OPENMPI_4).num_processes == 4
  # Open MPI 5 does not say where process 0 is.
  membership = membership_of(Launch(coordinator="host:1234"), OPENMPI)
  assert membership == Membership("host:1234", 4, 3, None, "deactivate")


@pytest.mark.parametrize(
  ("launch", "environment", "method"),
  [
    (Launch(), {"TPU_WORKER_HOSTNAMES": "a,b"}, "gketpu"),
    (Launch(), {"MEGASCALE_COORDINATOR_ADDRESS": "a", "TPU_WORKER_HOSTNAMES": "a"}, "gketpu"),
    (Launch(cluster="tpu"), {}, "gcetpu"),
  ],
)
def test_tpu(launch: Launch, environment: dict[str, str], method: str):
  assert membership_of(launch, environment) == Membership(None, None, None, None, method)


@pytest.mark.parametrize(
  ("launch", "environment", "message"),
  [
    (EXPLICIT._replace(num_processes=None), {}, "--num_processes: missing"),
    (Launch(process_id=0), {}, "--coordinator, --num_processes: missing"),
    (Launch(), {"JAX_COORDINATOR_ADDRESS": "host:1"}, "--num_processes, --process_id: missing"),
    (Launch(), OPENMPI, "--coordinator: missing"),
    (EXPLICIT._replace(process_id=2), {}, "--process_id: must be from 0 to 1, got 2"),
    (EXPLICIT._replace(process_id=-1), {}, "--process_id: must be from 0 to 1, got -1"),
    (EXPLICIT._replace(num_processes=0), {}, "--num_processes: must be at least 1, got 0"),
    (EXPLICIT._replace(coordinator="host"), {}, "--coordinator: must be HOST:PORT"),
    (EXPLICIT._replace(coordinator="host:70000"), {}, "--coordinator: must be HOST:PORT"),
    (EXPLICIT._replace(process_id=0), JAX, "--process_id: the flag says 0, the environment"),
    (EXPLICIT._replace(num_processes=8), SLURM, "--process_id: 1 is given, but SLURM says 5"),
    (EXPLICIT, {"TPU_WORKER_HOSTNAMES": "a,b"}, "a TPU slice knows these itself"),
    (Launch(), {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES: the environment's value must be"),
    (Launch(), {"SLURM_STEP_NODELIST": "a"}, "SLURM_JOB_ID: the scheduler's environment lacks it"),
    (Launch(), SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4"}, "cannot share the 5 GPUs"),
    (Launch(cluster="slurm"), {}, "--cluster=slurm: this process was not started by srun"),
    (Launch(cluster="pbs"), {}, "--cluster: must be one of auto, none"),
  ],
)
def test_bad_input_is_one_clear_error(launch: Launch, environment: dict[str, str], message: str):
  with pytest.raises(LaunchError) as error:
    membership_of(launch, environment)
  assert message in str(error.value)
  assert "\n" not in str(error.value)
