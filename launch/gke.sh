#!/usr/bin/env bash
# Trains on a GKE cluster: builds the image, fills in gke_jobset.yaml, applies it, follows the log.
set -uo pipefail

usage() {
  cat <<'USAGE'
Usage: launch/gke.sh --image=IMAGE --claim=CLAIM --accelerator=LABEL [OPTION…] -- ARGUMENT-OF-MAIN…

Runs magnifier_jax.main as a JobSet: one pod on each node, with all devices of the node. Needs
kubectl with access to a cluster that has the JobSet controller, and docker to build the image.
Interrupt this script at will: the run does not stop, and --follow shows it again.

  --image=IMAGE        where to push the image and to pull it from, with its tag
  --claim=CLAIM        PersistentVolumeClaim (ReadWriteMany), mounted as /storage; the workdir and
                       the images belong there
  --accelerator=LABEL  of the nodes: nvidia-h100-80gb, nvidia-l4, …; tpu-v5-lite-podslice, …
  --topology=TOPOLOGY  of a TPU slice, for instance 4x4
  --nodes=N            nodes, and so processes (2)
  --per-node=N         GPUs or TPU chips of each node (8; 4 on TPUs)
  --name=NAME          of the JobSet (magnifier)
  --namespace=NAME     of Kubernetes (kubectl's own)
  --restarts=N         how often the run may be started again (20)
  --no-build           the image is there already
  --print              only print the JobSet
  --follow             only follow the JobSet of that --name
  --help               this text

Exit code 0: the run has finished. 1: it has failed. 2: something given here is wrong.

Example:
  launch/gke.sh --image=REGISTRY/magnifier:1 --claim=reid --accelerator=nvidia-h100-80gb -- \
    --config=configs/cuhk03.py --config.data.manual_dir=/storage/data --workdir=/storage/runs/cuhk03
USAGE
}

image=
claim=
accelerator=
topology=
nodes=2
per_node=
name=magnifier
namespace=
restarts=20
action=run
build=yes
poll_s=${POLL_SECONDS:-10} # between two looks at a run that shows no log

say() {
  echo "launch/gke.sh: $1" >&2
}

die() {
  say "$1"
  exit 2
}

while (($#)); do
  case $1 in
    --image=*) image=${1#*=} ;;
    --claim=*) claim=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --nodes=*) nodes=${1#*=} ;;
    --per-node=*) per_node=${1#*=} ;;
    --name=*) name=${1#*=} ;;
    --namespace=*) namespace=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --no-build) build= ;;
    --print) action=print ;;
    --follow) action=follow ;;
    --help | -h) usage && exit 0 ;;
    --) shift && break ;;
    *) die "unknown option '$1'; --help lists them, and what main gets comes after --" ;;
  esac
  shift
done
cd "$(dirname "$0")/.." || die "cannot enter the checkout"

kind=gpu
[[ $accelerator != tpu* ]] || kind=tpu
if [[ $kind == tpu ]]; then
  per_node=${per_node:-4}
else
  per_node=${per_node:-8}
fi

check() {
  [[ $image ]] || die "--image: missing"
  [[ $claim ]] || die "--claim: missing"
  [[ $accelerator ]] || die "--accelerator: missing"
  [[ $kind == gpu || $topology ]] || die "--topology: missing; a TPU slice needs it, for instance 4x4"
  [[ $nodes =~ ^[1-9][0-9]*$ ]] || die "--nodes: must be a whole number from 1, got '$nodes'"
  [[ $per_node =~ ^[1-9][0-9]*$ ]] || die "--per-node: must be a whole number from 1, got '$per_node'"
  [[ $restarts =~ ^[0-9]+$ ]] || die "--restarts: must be a whole number, got '$restarts'"
}

# json_list WORD…
json_list() {
  local word list=
  for word in "$@"; do
    word=${word//\\/\\\\}
    # Kubernetes would put a variable in the place of $(NAME).
    word=${word//\$(/\$\$(}
    list+="${list:+, }\"${word//\"/\\\"}\""
  done
  echo "[$list]"
}

# fill NAME VALUE, in the text of render
fill() {
  text=${text//"\${$1}"/"$2"}
}

# Prints the JobSet that runs main with ARGUMENT….
render() {
  local other=tpu text
  [[ $kind == gpu ]] || other=gpu
  text=$(sed -e "/^#/d; /# only: $other\$/d" -e "s/ *# only: $kind\$//" launch/gke_jobset.yaml) || return
  fill NAME "$name"
  fill IMAGE "$image"
  fill NODES "$nodes"
  fill PER_NODE "$per_node"
  fill ACCELERATOR "$accelerator"
  fill TOPOLOGY "$topology"
  fill CLAIM "$claim"
  fill RESTARTS "$restarts"
  fill ARGUMENTS "$(json_list "$@")"
  echo "$text"
}

cluster() {
  kubectl ${namespace:+"--namespace=$namespace"} "$@"
}

# Shows the log of process 0 through every restart, until the JobSet has ended.
follow() {
  local state
  while :; do
    state=$(cluster get jobset "$name" "--output=jsonpath={.status.terminalState}") ||
      die "cannot look up the JobSet $name"
    case $state in
      Completed) say "the run has finished" && exit 0 ;;
      Failed)
        say "the run has failed; kubectl describe jobset $name says why"
        exit 1
        ;;
    esac
    # Fails while no pod runs, for instance between a preemption and the next start.
    cluster logs --follow --tail=-1 \
      "--selector=jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0" ||
      true
    sleep "$poll_s"
  done
}

if [[ $action != follow ]]; then
  check
  (($#)) || die "nothing to run; give main's arguments after --"
fi
case $action in
  print) render "$@" ;;
  follow) follow ;;
  run)
    if [[ $build ]]; then
      extra=cuda12
      [[ $kind == gpu ]] || extra=tpu
      docker build --file=launch/Dockerfile "--build-arg=ACCELERATOR=$extra" "--tag=$image" . ||
        die "docker could not build the image"
      docker push "$image" || die "docker could not push $image"
    fi
    render "$@" | cluster apply --filename=- || die "kubectl did not take the JobSet"
    follow
    ;;
esac
