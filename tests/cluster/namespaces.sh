#!/bin/bash
# Two machines with addresses of their own, as two network namespaces of this one: they train one run, and go on after a
# rank was killed, a machine was told to end, a machine was lost, and the one where they meet was. For Linux, as root;
# what is missing is installed (Debian), what was started is ended.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck disable=SC1091 # it is checked by itself
. tests/cluster/hosts.bash
# shellcheck disable=SC1091 # it is checked by itself
. tests/cluster/installing.bash
command=$PWD/.venv/bin/partial-fc
base=$(mktemp -d -t partial-fc-namespaces.XXXX)
name=pfc$$ # of the namespaces and their interfaces
meet=10.99.0.1:29400

provide "ip" iproute2

clean_up() {
    for node in 0 1; do
        ip netns pids "$name$node" 2> /dev/null | xargs --no-run-if-empty kill -KILL 2> /dev/null || true
        ip netns delete "$name$node" 2> /dev/null || true
    done
    wait
    rm -rf "$base"
}
trap clean_up EXIT

two_hosts "$name" 10.99.0

start() { # NODE [VARIABLE=VALUE...]: the same command on each of them, among the variables that Kubeflow sets
    local node=$1
    shift
    ip netns exec "$name$node" env OMP_NUM_THREADS=1 PET_NNODES=2 "PET_NODE_RANK=$node" PET_NPROC_PER_NODE=auto \
        PET_MASTER_ADDR=10.99.0.1 PET_MASTER_PORT=29500 "$@" "$command" train "$base/config.yaml" \
        --nproc 1 --nodes 2 --meet "$meet" --max-restarts 3 >> "$base/node$node.log" 2>&1 &
    agents[node]=$!
}
ended() { # NODE: waits for its agent; code is its exit code
    code=0
    wait "${agents[$1]}" 2> /dev/null || code=$?
}
until_true() { # WHAT SECONDS COMMAND...: waits, or tells what did not come and what the nodes said
    local what=$1 end=$((SECONDS + $2))
    shift 2
    until "$@" > /dev/null 2>&1; do
        if ((SECONDS > end)); then
            echo "not within the time: $what" >&2
            tail -n 20 "$base"/node?.log >&2
            exit 1
        fi
        sleep 0.5
    done
    echo "$((SECONDS)) s: $what"
}
has_said() { [ "$(cat "$base"/node?.log | grep -c "$1")" -ge "$2" ]; }
trains() { # TIMES: it has started so often, and reported steps and saved since
    local since
    since=$(cat "$base"/node?.log | grep -c "steps of 16 on 2 x cpu")
    [ "$since" -ge "$1" ] && [ "$(newest)" -gt "$((last + 40))" ]
}
newest() { find "$base/run/checkpoints" -maxdepth 1 -name 'step-????????' -printf '%f\n' | sed 's/step-0*//' | sort -n | tail -n 1; }
rank_of() { pgrep --parent "${agents[$1]}"; }
agents=()
last=0

"$command" pack synthetic --identities 24 --images 8 --size 24 --out "$base/set" > /dev/null
cat > "$base/config.yaml" << EOF
run_dir: $base/run
data: {train: $base/set, image_size: 24}
backbone: {name: r18, width: 8, embedding_dim: 16, compile: false, autocast: float32}
schedule: {epochs: 100, batch_size: 16}
report: {every_steps: 20, prometheus: false}
save_every_steps: 20
EOF

start 1 GLOO_SOCKET_IFNAME=eth7
ended 1
grep "no network interface eth7, it has lo, ${name}v1. Name one of these" "$base/node1.log"
[ "$code" -eq 2 ]

start 1 # the machine where they meet may start last
until_true "node 1 waits for node 0" 60 has_said "waiting for $meet" 1
start 0
until_true "two nodes train one run" 120 trains 1

last=$(newest)
kill -KILL "$(rank_of 1)"
until_true "a rank was killed: they go on" 120 trains 2

last=$(newest)
kill -TERM "${agents[1]}" # as Kubernetes does before it takes a machine away
ended 1
echo "$((SECONDS)) s: node 1 was told to end: exit code $code"
[ "$code" -eq 143 ]
start 1
until_true "it came again: they go on" 120 trains 3

last=$(newest)
kill -KILL "$(rank_of 1)" "${agents[1]}"
ended 1
start 1
until_true "node 1 was lost and came again: they go on" 120 trains 4

last=$(newest)
kill -KILL "$(rank_of 0)" "${agents[0]}"
ended 0
ended 1
echo "$((SECONDS)) s: node 0, where they meet, was lost: node 1 ended with exit code $code"
[ "$code" -eq 1 ]
tail -n 1 "$base/node1.log" | grep "cannot be reached, or no longer"
start 0
start 1
until_true "both were started again: they go on" 120 trains 5

last=$(newest)
kill -TERM "${agents[0]}"
ended 0
told=$code
ended 1
echo "$((SECONDS)) s: node 0 was told to end: exit codes $told and $code"
[ "$told $code" = "143 1" ]
start 0
start 1
until_true "both were started again: they go on" 120 trains 6

for node in 0 1; do
    ended "$node"
    echo "$((SECONDS)) s: node $node ended with exit code $code"
    [ "$code" -eq 0 ]
done
[ -d "$base/run/checkpoints/step-00001200" ]
grep -h "going on" "$base"/node?.log
echo "the last of its 1,200 steps is saved"
