#!/bin/bash
# The real docker/Dockerfile, built and run without a Docker engine: a container trains and is told to end, then two
# containers with networks of their own train one run, a rank is killed, and they go on. For Debian, as root; what is
# missing is installed, what was made is removed. It takes some minutes and 8 GB of disk for a while.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck disable=SC1091 # it is checked by itself
. tests/cluster/hosts.bash
# shellcheck disable=SC1091 # it is checked by itself
. tests/cluster/installing.bash
base=$(mktemp -d -t partial-fc-containers.XXXX --tmpdir=/var/tmp)
name=pfc$$ # of the containers, their networks and interfaces
meet=10.98.0.1:29400
storage=(--root "$base/storage" --runroot "$base/run" --storage-driver overlay)

provide "buildah podman runc mmdebstrap ip" --no-install-recommends buildah podman runc mmdebstrap uidmap iproute2
cache=/var/lib/containers # buildah and podman remember layers there, whatever their storage
had_cache=$([ ! -e "$cache" ] || echo yes)
engine() { podman --cgroup-manager=cgroupfs "${storage[@]}" "$@"; }

clean_up() {
    engine rm --all --force --time 0 > /dev/null 2>&1 || true
    for node in 0 1; do
        ip netns delete "$name$node" 2> /dev/null || true
    done
    engine unmount --all > /dev/null 2>&1 || true
    umount "$base/storage/overlay" 2> /dev/null || true
    rm -rf "$base"
    [ -n "$had_cache" ] || rm -rf "$cache"
}
trap clean_up EXIT

pip_mounts() { # what this machine's pip is told of files here: its configuration, certificates, folders of packages
    {
        python3 -m pip config debug | sed -nE 's/^ *(.*), exists: True$/\1/p'
        python3 -m pip config list | grep -oE "/[^/'= ][^'= ]*" | sed 's/\/simple$//' # the packages lie beside an index
    } | sort --unique | while read -r path; do
        [ ! -e "$path" ] || printf -- '--volume=%s:%s:ro\n' "$path" "$path"
    done
}

mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$base/debian.tar"
work=$(buildah "${storage[@]}" from scratch)
buildah "${storage[@]}" add --quiet "$work" "$base/debian.tar" / > /dev/null
buildah "${storage[@]}" config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$work"
buildah "${storage[@]}" commit --quiet --rm "$work" localhost/partial-fc-base > /dev/null
rm "$base/debian.tar"
echo "$SECONDS s: a Debian with Python"

mapfile -t mounts < <(pip_mounts)
buildah "${storage[@]}" build --quiet --format docker --isolation chroot --network host "${mounts[@]}" \
    --build-arg BASE=localhost/partial-fc-base --file docker/Dockerfile --tag localhost/partial-fc . > "$base/build.log" 2>&1 ||
    { tail -n 40 "$base/build.log" >&2; exit 1; }
size=$(engine image inspect --format '{{.Size}}' localhost/partial-fc)
echo "$SECONDS s: the image, $((size / 1000000)) MB"

safely=(--runtime runc --read-only --tmpfs /tmp --cap-drop all --security-opt no-new-privileges --shm-size 256m
    --no-healthcheck --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --env OMP_NUM_THREADS=1
    --volume "$base/data:/data" --volume "$base/runs:/runs" --volume "$base/config:/config:ro")
mkdir "$base"/{data,runs,config}
chown 10001:10001 "$base"/{data,runs}
once() { engine run --rm --network none "${safely[@]}" "$@"; }
until_true() { # WHAT SECONDS COMMAND...: waits, or tells what did not come and what the containers said
    local what=$1 end=$((SECONDS + $2)) each
    shift 2
    until "$@" > /dev/null 2>&1; do
        if ((SECONDS > end)); then
            echo "not within the time: $what" >&2
            for each in $(engine ps --all --quiet); do engine logs --tail 20 "$each" >&2; done
            exit 1
        fi
        sleep 0.5
    done
    echo "$SECONDS s: $what"
}
has_said() { [ "$(engine logs "$1" 2>&1 | grep -c "$2")" -ge "$3" ]; }
is_healthy() { engine exec "$1" python3 /opt/partial-fc/share/healthcheck.py; }
exit_code() { engine wait "$1"; }

[ "$(once --entrypoint id localhost/partial-fc -u)" -ne 0 ]
once --entrypoint sh localhost/partial-fc -c '! command -v cc gcc g++ clang make'
once --entrypoint cat localhost/partial-fc /opt/partial-fc/share/sbom.cdx.json > "$base/sbom.json"
python3 - "$base/sbom.json" << 'EOF'
import json
import sys

components = {each["name"]: each["version"] for each in json.load(open(sys.argv[1]))["components"]}
assert {"partial-fc", "torch", "numpy", "safetensors"} <= components.keys(), sorted(components)
print(f"its SBOM names {len(components)} packages, torch {components['torch']} among them")
EOF

once localhost/partial-fc pack synthetic --identities 24 --images 8 --size 24 --out /data/set > /dev/null 2>&1
cat > "$base/config/run.yaml" << EOF
run_dir: /runs/alone
data: {train: /data/set, evaluate: /data/set, image_size: 24}
backbone: {name: r18, width: 8, embedding_dim: 16, autocast: float32}
schedule: {epochs: 60, batch_size: 16}
report: {every_steps: 20}
save_every_steps: 20
EOF
chmod -R a+rX "$base/config"

engine run --detach --name "${name}alone" --network none "${safely[@]}" localhost/partial-fc train /config/run.yaml --nproc 2 > /dev/null
until_true "a container trains, without a compiler" 120 has_said "${name}alone" "^step " 2
until_true "its health check finds it" 10 is_healthy "${name}alone"
engine stop --time 60 "${name}alone" > /dev/null
code=$(exit_code "${name}alone")
echo "$SECONDS s: told to end: exit code $code"
engine logs "${name}alone" 2>&1 | grep "SIGTERM: stopped after step"
[ "$code" -eq 143 ]
if is_healthy "${name}alone" 2> /dev/null; then exit 1; fi
once localhost/partial-fc train /config/run.yaml --nproc 2 --set schedule.epochs=60 > "$base/again.log" 2>&1 || { cat "$base/again.log"; exit 1; }
grep "going on after step" "$base/again.log"
[ -f "$base/runs/alone/report.html" ]
echo "$SECONDS s: the same command went on, evaluated, and ended"

two_hosts "$name" 10.98.0
for node in 0 1; do
    engine run --detach --name "$name$node" --network "ns:/run/netns/$name$node" "${safely[@]}" localhost/partial-fc \
        train /config/run.yaml --set run_dir=/runs/two --nproc 1 --nodes 2 --meet "$meet" --max-restarts 3 > /dev/null
done
until_true "two containers train one run" 120 has_said "${name}0" "^step " 3
kill -KILL "$(pgrep --parent "$(engine inspect --format '{{.State.Pid}}' "${name}1")")"
until_true "a rank was killed: they go on" 120 has_said "${name}0" "going on after step" 1
for node in 0 1; do
    code=$(exit_code "$name$node")
    echo "$SECONDS s: container $node ended with exit code $code"
    [ "$code" -eq 0 ]
done
[ -d "$base/runs/two/checkpoints/step-00000720" ]
echo "the last of their 720 steps is saved"
