#!/usr/bin/env bash
# Runs one command as several JAX processes on this machine, over loopback.
set -uo pipefail

usage() {
  cat <<'USAGE'
Usage: launch/local.sh [OPTION…] -- COMMAND [ARGUMENT…]

Starts COMMAND several times on this machine, as the processes of one run. Each line of output is
shown with the number of its process in front. When one process fails, the others are stopped.

  --processes=N     how many processes (2)
  --cpu-devices=M   CPU devices of each process (1)
  --gpus            instead, give each process its share of the visible NVIDIA GPUs
  --logs=DIR        also write DIR/process-0.log, DIR/process-1.log, …
  --grace=SECONDS   from the first failure to SIGKILL for the others (20)
  --port=PORT       of process 0 on 127.0.0.1 (a free one)
  --help            this text

SIGTERM, SIGINT and SIGHUP go on to every process, and the launcher waits for them to end. Its exit
code is that of the first process that failed, or 0.

Example: two processes with two CPU devices each
  launch/local.sh --cpu-devices=2 -- python -m magnifier_jax.main --config=configs/synthetic.py
USAGE
}

processes=2
cpu_devices=1
gpus=
logs=
grace=20
port=

die() {
  echo "launch/local.sh: $1" >&2
  exit 2
}

# number NAME VALUE MINIMUM
number() {
  if ! [[ $2 =~ ^[0-9]{1,6}$ ]] || ((10#$2 < $3)); then
    die "$1: must be a whole number from $3, got '$2'"
  fi
}

while (($#)); do
  case $1 in
    --processes=*) processes=${1#*=} ;;
    --cpu-devices=*) cpu_devices=${1#*=} ;;
    --gpus) gpus=yes ;;
    --logs=*) logs=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --help | -h) usage && exit 0 ;;
    --) shift && break ;;
    -*) die "unknown option '$1'; --help lists them" ;;
    *) break ;;
  esac
  shift
done
(($#)) || die "no command; --help shows an example"
number --processes "$processes" 1
number --cpu-devices "$cpu_devices" 1
number --grace "$grace" 0
[[ -z $port ]] || number --port "$port" 1

# Below the range from which systems hand out ports, so that nothing takes it meanwhile.
free_port() {
  local candidate
  while :; do
    candidate=$((20000 + RANDOM % 10000))
    (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null || break
  done
  echo "$candidate"
}

visible_gpus() {
  if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES"
  else
    nvidia-smi --query-gpu=index --format=csv,noheader
  fi | sed '/^[[:space:]]*$/d'
}

if [[ $gpus ]]; then
  devices=()
  while IFS= read -r device; do devices+=("$device"); done < <(visible_gpus)
  ((${#devices[@]} > 0)) || die "--gpus: no NVIDIA GPU is visible"
  ((${#devices[@]} % processes == 0)) ||
    die "--processes: $processes processes cannot share ${#devices[@]} GPUs evenly"
  share=$((${#devices[@]} / processes))
fi

# Settings of process $1, one NAME=VALUE a line.
settings() {
  echo "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port"
  echo "JAX_COORDINATOR_BIND_ADDRESS=127.0.0.1:$port"
  echo "JAX_NUM_PROCESSES=$processes"
  echo "JAX_PROCESS_ID=$1"
  echo "PYTHONUNBUFFERED=1"
  if [[ $gpus ]]; then
    local own=("${devices[@]:$(($1 * share)):share}")
    (IFS=, && echo "CUDA_VISIBLE_DEVICES=${own[*]}")
  else
    echo "JAX_PLATFORMS=cpu"
    # The last of several wins.
    echo "XLA_FLAGS=${XLA_FLAGS:-} --xla_force_host_platform_device_count=$cpu_devices"
  fi
}

# Shows the lines of process $1 with its number, and keeps them.
show() {
  local line
  while IFS= read -r line || [[ $line ]]; do
    printf '[%s] %s\n' "$1" "$line"
    [[ -z $logs ]] || printf '%s\n' "$line" >>"$logs/process-$1.log"
  done
}

running=() # process number → process id
readers=()

# start NUMBER COMMAND…
start() {
  local number=$1 own=() setting
  shift
  while IFS= read -r setting; do own+=("$setting"); done < <(settings "$number")
  mkfifo "$scratch/$number"
  show "$number" <"$scratch/$number" &
  readers+=($!)
  # Job control gives it a process group of its own, and lets it see SIGINT.
  set -m
  env "${own[@]}" "$@" >"$scratch/$number" 2>&1 </dev/null &
  running[number]=$!
  set +m
}

# forward SIGNAL to every process that is left, and to its children
forward() {
  local number
  for number in "${!running[@]}"; do
    kill -s "$1" -- "-${running[number]}" 2>/dev/null
  done
}

# Notes the processes that have ended; at the first failure the others are asked to end.
collect() {
  local number status
  for number in "${!running[@]}"; do
    kill -0 "${running[number]}" 2>/dev/null && continue
    wait "${running[number]}"
    status=$?
    unset "running[number]"
    ((status == 0)) && continue
    echo "launch/local.sh: process $number ended with exit code $status" >&2
    ((exit_code == 0)) || continue
    exit_code=$status
    deadline=$((SECONDS + grace))
    forward TERM
  done
}

[[ -z $logs ]] || mkdir -p "$logs" || die "--logs: cannot create '$logs'"
for ((number = 0; number < processes; number++)); do
  [[ -z $logs ]] || : >"$logs/process-$number.log" || die "--logs: cannot write in '$logs'"
done
port=${port:-$(free_port)}
exit_code=0
deadline=
scratch=$(mktemp -d)
trap 'forward KILL; rm -rf "$scratch"' EXIT
trap 'forward TERM' TERM HUP
trap 'forward INT' INT

for ((number = 0; number < processes; number++)); do
  start "$number" "$@"
done
while ((${#running[@]})); do
  if [[ $deadline ]] && ((SECONDS >= deadline)); then
    forward KILL
  fi
  sleep 0.1
  collect
done
# What the processes wrote last.
wait "${readers[@]}"
exit "$exit_code"
