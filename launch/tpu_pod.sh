#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it, copies the checkout, runs on every worker, and resumes.
set -uo pipefail

usage() {
  cat <<'USAGE'
Usage: launch/tpu_pod.sh --name=NAME --zone=ZONE --storage=STORAGE [OPTION…] -- ARGUMENT-OF-MAIN…

Runs magnifier_jax.main on every worker of a Cloud TPU slice and shows worker 0's log. Creates the
slice if there is none of that name. When it is preempted, it is made anew and the run goes on.
Interrupt this script at will: the run does not stop, and the same command follows it again.

  --name=NAME         of the slice
  --zone=ZONE         where it is, or shall be
  --storage=STORAGE   what all workers share, as the folder 'storage' beside the code: a Cloud
                      Storage bucket (gs://BUCKET, with hierarchical namespace) or an NFS export
                      (HOST:/EXPORT). The workdir and the images belong there.
  --type=TYPE         accelerator type of a new slice (v5litepod-16)
  --version=VERSION   runtime version of a new slice (v2-alpha-tpuv5-lite)
  --spot              a new slice is a Spot one: cheaper, preempted at any time
  --project=PROJECT   Google Cloud project (gcloud's own setting)
  --restarts=N        how often the run may be started again (20)
  --delete            delete the slice when the run has ended
  --help              this text

The exit code is the run's.

Example:
  launch/tpu_pod.sh --name=magnifier --zone=us-west4-a --storage=gs://BUCKET --spot -- \
    --config=configs/cuhk03.py --config.data.manual_dir=storage/data --workdir=storage/runs/cuhk03
USAGE
}

name=
zone=
storage=
type=v5litepod-16
version=v2-alpha-tpuv5-lite
spot=
project=
restarts=20
delete=
poll_s=${POLL_SECONDS:-20} # between two looks at a slice that is not ready

die() {
  say "$1" >&2
  exit 2
}

say() {
  echo "launch/tpu_pod.sh: $1"
}

while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --storage=*) storage=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --spot) spot=yes ;;
    --project=*) project=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --delete) delete=yes ;;
    --help | -h) usage && exit 0 ;;
    --) shift && break ;;
    *) die "unknown option '$1'; --help lists them, and what main gets comes after --" ;;
  esac
  shift
done
[[ $name ]] || die "--name: missing"
[[ $zone ]] || die "--zone: missing"
[[ $restarts =~ ^[0-9]+$ ]] || die "--restarts: must be a whole number, got '$restarts'"
case $storage in
  gs://?* | ?*:/?*) ;;
  *) die "--storage: must be gs://BUCKET or HOST:/EXPORT, got '$storage'" ;;
esac
(($#)) || die "nothing to run; give main's arguments after --"
command -v gcloud >/dev/null || die "gcloud is not installed (the Google Cloud CLI)"
cd "$(dirname "$0")/.." || die "cannot enter the checkout"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# tpu VERB ARGUMENT…
tpu() {
  gcloud --quiet ${project:+"--project=$project"} compute tpus tpu-vm "$@" "--zone=$zone"
}

# on WORKER COMMAND
on() {
  tpu ssh "$name" "--worker=$1" "--command=$2"
}

# Prints the state of the slice, or MISSING.
slice_state() {
  if tpu describe "$name" "--format=value(state)" 2>"$scratch/errors"; then
    return
  elif grep -q NOT_FOUND "$scratch/errors"; then
    echo MISSING
  else
    cat "$scratch/errors" >&2
    return 1
  fi
}

create() {
  say "creating $name ($type) in $zone"
  tpu create "$name" "--accelerator-type=$type" "--version=$version" ${spot:+--spot}
}

# Returns when the slice is ready.
ensure_slice() {
  local state failures=0
  while :; do
    state=$(slice_state) || die "cannot look up the slice $name"
    case $state in
      READY) return ;;
      MISSING)
        create && continue
        # Most often there is no free capacity at the moment.
        ((++failures < 30)) || die "could not create $name in 30 tries"
        ;;
      PREEMPTED | TERMINATED | FAILED)
        say "$name is $state; making it anew"
        tpu delete "$name" || die "could not delete $name"
        continue
        ;;
      STOPPED) tpu start "$name" || die "could not start $name" ;;
    esac
    sleep "$poll_s"
  done
}

# What a worker runs to mount the storage.
mount_command() {
  local folder="\$HOME/magnifier_jax/storage"
  echo "mkdir -p $folder"
  if [[ $storage == gs://* ]]; then
    cat <<REMOTE
if ! command -v gcsfuse >/dev/null; then
  curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
  echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -cs) main" | sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get -qq update && sudo apt-get -qq install -y gcsfuse
fi
mountpoint -q $folder || gcsfuse --implicit-dirs --rename-dir-limit=100000 $(printf '%q' "${storage#gs://}") $folder
REMOTE
  else
    cat <<REMOTE
command -v mount.nfs >/dev/null || { sudo apt-get -qq update && sudo apt-get -qq install -y nfs-common; }
mountpoint -q $folder || sudo mount -t nfs $(printf '%q' "$storage") $folder
REMOTE
  fi
}

install_everywhere() {
  say "copying the checkout and installing on every worker"
  git ls-files -z | tar --null -T - -czf "$scratch/code.tar.gz" || die "could not pack the tracked files"
  tpu scp "$scratch/code.tar.gz" "$name:magnifier_jax.tar.gz" --worker=all || return
  on all "set -e
mkdir -p ~/magnifier_jax
tar -xzf ~/magnifier_jax.tar.gz -C ~/magnifier_jax
$(mount_command)
cd ~/magnifier_jax
# The image's own Python may be older than 3.11.
[ -x ~/.local/bin/uv ] || curl -fLsS https://astral.sh/uv/install.sh | sh
[ -x .venv/bin/python ] || ~/.local/bin/uv venv --quiet --python 3.11 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python -r requirements.txt 'jax[tpu]'"
}

launch_everywhere() {
  local run
  printf -v run '%q ' .venv/bin/python -u -m magnifier_jax.main --cluster=tpu "$@"
  say "starting: $run"
  # Whatever is left of an earlier try holds the TPU. The new run outlives this connection, and
  # leaves its exit code behind.
  on all "cd ~/magnifier_jax
if [ -e ~/magnifier.pid ]; then kill -KILL -- -\$(cat ~/magnifier.pid) 2>/dev/null; fi
rm -f ~/magnifier.exit ~/magnifier.pid
nohup setsid bash -c $(printf '%q' "echo \$\$ >~/magnifier.pid; $run; echo \$? >~/magnifier.exit") >~/magnifier.log 2>&1 </dev/null &
until [ -e ~/magnifier.pid ]; do sleep 0.1; done"
}

# Prints 'running', the exit code of the last run, or nothing when there was none.
run_state() {
  on 0 "if [ -e ~/magnifier.exit ]; then cat ~/magnifier.exit
elif [ -e ~/magnifier.pid ] && kill -0 \$(cat ~/magnifier.pid) 2>/dev/null; then echo running; fi" | tail -n 1
}

# Shows worker 0's log until the run ends or the connection breaks.
follow() {
  on 0 "tail -n +1 -F --pid=\$(cat ~/magnifier.pid) ~/magnifier.log"
}

finish() {
  if [[ $delete ]]; then
    tpu delete "$name" || say "could not delete $name; it still costs money"
  else
    say "$name is still there and costs money; --delete, or: gcloud compute tpus tpu-vm delete $name --zone=$zone"
  fi
  exit "$1"
}

starts=0
ensure_slice
state=$(run_state)
while :; do
  if [[ $state != running ]]; then
    if ((starts > restarts)); then
      say "interrupted $starts times; giving up"
      finish 1
    fi
    ((++starts))
    if ! { install_everywhere && launch_everywhere "$@"; }; then
      say "the slice did not take the run"
    fi
  fi
  follow
  ensure_slice
  state=$(run_state)
  case $state in
    running) say "the connection broke; following again" ;;
    0) say "the run has finished" && finish 0 ;;
    2) say "stopped by an error that another try would not mend" && finish 2 ;;
    *) say "the run was interrupted (exit code ${state:-unknown}); going on from its checkpoint" ;;
  esac
  sleep "$poll_s"
done
