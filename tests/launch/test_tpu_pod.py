"""The TPU script, on a stand-in for gcloud whose slice is a folder: what it runs there does run."""

import subprocess
from pathlib import Path

import pytest

from tests.launch.conftest import FakePrograms

# A slice of one worker: $STATE/slice says how it is, $STATE/home is the worker's home.
GCLOUD = """
for argument in "$@"; do
  case $argument in
    --command=*) command=${argument#*=} ;;
    describe | create | delete | scp | ssh) verb=$argument ;;
    /*) file=$argument ;;
  esac
done
case $verb in
  describe) cat "$STATE/slice" 2>/dev/null || { echo "ERROR: NOT_FOUND" >&2; exit 1; } ;;
  create) mkdir "$STATE/home" && echo READY >"$STATE/slice" ;;
  delete) rm -r "$STATE/home" "$STATE/slice" ;;
  scp) cp "$file" "$STATE/home/magnifier_jax.tar.gz" ;;
  ssh)
    grep -q READY "$STATE/slice" || { echo "cannot connect" >&2; exit 255; }
    cd "$STATE/home" && HOME=$STATE/home bash -c "$command"
    ;;
esac
"""

# The installer of uv; its uv makes a Python that does what the test says.
INSTALLER = """
case $* in *apt-key*) exit ;; esac
mkdir -p "$HOME/.local/bin"
cat >"$HOME/.local/bin/uv" <<'UV'
#!/usr/bin/env bash
if [ "$1" = venv ]; then mkdir -p .venv/bin && cp "$STATE/python" .venv/bin/python; fi
UV
chmod +x "$HOME/.local/bin/uv"
"""

TPU = ["gcloud", "--quiet", "compute", "tpus", "tpu-vm"]
ZONE = "--zone=us-west4-a"
OPTIONS = ["--name=pod", ZONE, "--storage=gs://bucket"]
ARGUMENTS = ["--config=configs/cuhk03.py", "--workdir=storage/a b"]


def _prepare(programs: FakePrograms, python: str) -> None:
  """Sets up a cloud without a slice, on whose workers `python` is the training."""
  programs.add("gcloud", GCLOUD)
  programs.add("curl", INSTALLER)
  programs.add("gcsfuse")
  programs.add("mountpoint", "exit 1")
  programs.add("mount.nfs")
  programs.add("sudo")
  path = programs.folder / "python"
  path.write_text(f'#!/usr/bin/env bash\nprintf "%s|" "$@" >>"$STATE/trained"\n{python}\n')
  path.chmod(0o755)


def _gcloud_calls(programs: FakePrograms) -> list[list[str]]:
  return [call for call in programs.calls if call[0] == "gcloud"]


def _verbs(programs: FakePrograms) -> list[str]:
  """Returns what was asked of gcloud, without looking up states."""
  verbs = [call[5] for call in _gcloud_calls(programs)]
  return [verb for verb in verbs if verb not in ("describe", "ssh")]


def test_a_new_slice_is_made_and_the_run_followed_to_its_end(launch: Path, programs: FakePrograms):
  _prepare(programs, "echo step 1; sleep 0.3; echo step 2")
  result = programs.run(
    launch / "tpu_pod.sh", *OPTIONS, "--type=v6e-16", "--version=v2-alpha-tpuv6e", "--spot", "--",
    *ARGUMENTS,
  )  # fmt: skip
  assert result.returncode == 0, result.stdout + result.stderr
  assert "step 1\nstep 2\n" in result.stdout
  assert "--delete" in result.stdout  # the slice still costs money
  trained = (programs.folder / "trained").read_text()
  assert trained == "|".join(["-u", "-m", "magnifier_jax.main", "--cluster=tpu", *ARGUMENTS, ""])
  calls = _gcloud_calls(programs)
  assert calls[0] == [*TPU, "describe", "pod", "--format=value(state)", ZONE]
  assert calls[1] == [
    *TPU, "create", "pod", "--accelerator-type=v6e-16", "--version=v2-alpha-tpuv6e", "--spot", ZONE
  ]  # fmt: skip
  copy = next(call for call in calls if "scp" in call)
  assert copy[:6] == [*TPU, "scp"]
  assert copy[7:] == ["pod:magnifier_jax.tar.gz", "--worker=all", ZONE]
  workers = [call[7] for call in calls if "ssh" in call]
  # Is it running? Install, start, follow, how did it end?
  assert workers == ["--worker=0", "--worker=all", "--worker=all", "--worker=0", "--worker=0"]


@pytest.mark.parametrize(
  ("storage", "mount"),
  [
    ("gs://bucket", ["gcsfuse", "--implicit-dirs", "--rename-dir-limit=100000", "bucket"]),
    ("10.0.0.2:/reid", ["sudo", "mount", "-t", "nfs", "10.0.0.2:/reid"]),
  ],
)
def test_the_checkout_and_the_storage_are_on_the_worker(
  launch: Path, programs: FakePrograms, storage: str, mount: list[str]
):
  _prepare(programs, "ls magnifier_jax/main.py configs/cuhk03.py")
  options = [*OPTIONS[:2], f"--storage={storage}"]
  result = programs.run(launch / "tpu_pod.sh", *options, "--", *ARGUMENTS)
  assert "magnifier_jax/main.py" in result.stdout
  folder = str(programs.folder / "home" / "magnifier_jax" / "storage")
  assert [*mount, folder] in programs.calls


def test_a_preempted_slice_is_made_anew_and_the_run_goes_on(launch: Path, programs: FakePrograms):
  _prepare(
    programs,
    'if [ -e "$STATE/once" ]; then echo resumed; exit 0; fi\n'
    'touch "$STATE/once"; echo PREEMPTED >"$STATE/slice"; exit 1',
  )
  result = programs.run(launch / "tpu_pod.sh", *OPTIONS, "--delete", "--", *ARGUMENTS)
  assert result.returncode == 0, result.stdout + result.stderr
  assert "pod is PREEMPTED" in result.stdout
  assert "resumed" in result.stdout
  assert _verbs(programs) == ["create", "scp", "delete", "create", "scp", "delete"]
  assert _gcloud_calls(programs)[-1] == [*TPU, "delete", "pod", ZONE]


def test_a_crash_starts_again_on_the_same_slice(launch: Path, programs: FakePrograms):
  _prepare(programs, 'echo try; [ "$(grep -o main "$STATE/trained" | wc -l)" = 3 ]')
  result = programs.run(launch / "tpu_pod.sh", *OPTIONS, "--", *ARGUMENTS)
  assert result.returncode == 0
  assert result.stdout.count("interrupted (exit code 1)") == 2
  assert _verbs(programs) == ["create", "scp", "scp", "scp"]


def test_it_gives_up(launch: Path, programs: FakePrograms):
  _prepare(programs, "exit 1")
  result = programs.run(launch / "tpu_pod.sh", *OPTIONS, "--restarts=1", "--", *ARGUMENTS)
  assert result.returncode == 1
  assert "interrupted 2 times; giving up" in result.stdout


def test_a_wrong_config_is_not_tried_again(launch: Path, programs: FakePrograms):
  _prepare(programs, "echo 'error: config.seed: missing'; exit 2")
  result = programs.run(launch / "tpu_pod.sh", *OPTIONS, "--", *ARGUMENTS)
  assert result.returncode == 2
  assert "error: config.seed: missing" in result.stdout
  assert _verbs(programs) == ["create", "scp"]


def test_a_run_that_is_under_way_is_followed_not_started(launch: Path, programs: FakePrograms):
  _prepare(programs, 'echo begun; until [ -e "$STATE/go" ]; do sleep 0.1; done; echo ended')

  def start() -> subprocess.Popen:
    """Starts the script and waits until it shows the run."""
    process = subprocess.Popen(
      [launch / "tpu_pod.sh", *OPTIONS, "--", *ARGUMENTS],
      env=programs.environment(),
      stdout=subprocess.PIPE,
      text=True,
    )
    assert "begun\n" in process.stdout
    return process

  with start() as interrupted:
    interrupted.kill()
    second = start()
    (programs.folder / "go").touch()
    output, _ = second.communicate(timeout=30)
  assert second.returncode == 0
  assert "ended" in output
  assert _verbs(programs) == ["create", "scp"]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--zone=z", "--storage=gs://b", "--", "x"], "--name: missing"),
    (["--name=n", "--storage=gs://b", "--", "x"], "--zone: missing"),
    (["--name=n", "--zone=z", "--", "x"], "--storage: must be gs://BUCKET or HOST:/EXPORT"),
    (["--name=n", "--zone=z", "--storage=gs://b"], "give main's arguments after --"),
    (["--name=n", "--config=c"], "unknown option '--config=c'"),
    ([*OPTIONS, "--restarts=many", "--", "x"], "--restarts: must be a whole number"),
  ],
)
def test_bad_input_is_one_line(
  launch: Path, programs: FakePrograms, arguments: list[str], message: str
):
  programs.add("gcloud")
  result = programs.run(launch / "tpu_pod.sh", *arguments)
  assert result.returncode == 2
  assert message in result.stderr
  assert len(result.stderr.splitlines()) == 1
  assert programs.calls == []


def test_what_gcloud_refuses_is_shown(launch: Path, programs: FakePrograms):
  programs.add("gcloud", "echo 'ERROR: PERMISSION_DENIED' >&2; exit 1")
  result = programs.run(launch / "tpu_pod.sh", *OPTIONS, "--", *ARGUMENTS)
  assert result.returncode == 2
  assert "PERMISSION_DENIED" in result.stderr
  assert "cannot look up the slice pod" in result.stderr
