#!/bin/bash
# A real Slurm of two nodes on this machine: a job is preempted, queued again and told to end at its time limit, and each
# time goes on at the step it saved. For Debian, as root; what is missing is installed, what was started is ended.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck disable=SC1091 # it is checked by itself
. tests/cluster/installing.bash
command=$PWD/.venv/bin/partial-fc
base=$(mktemp -d -t partial-fc-slurm.XXXX)
export SLURM_CONF=$base/slurm.conf

provide "slurmctld slurmd sbatch munged" slurmctld slurmd slurm-client munge

clean_up() {
    scancel --user=root 2> /dev/null || true
    sleep 2
    kill "${started[@]}" 2> /dev/null || true
    wait "${started[@]}" 2> /dev/null || true
    while [ -n "$munge_id" ] && kill "$munge_id" 2> /dev/null; do sleep 0.1; done # gone, before this runs again
    rm -rf "$base"
}
started=()
munge_id=
trap clean_up EXIT

mkdir -p "$base"/{state,log,spool.n0,spool.n1} /run/munge
cat > "$SLURM_CONF" << EOF
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$base/state
SlurmdSpoolDir=$base/spool.%n
SlurmctldPidFile=$base/slurmctld.pid
SlurmdPidFile=$base/slurmd.%n.pid
SlurmctldLogFile=$base/log/slurmctld.log
SlurmdLogFile=$base/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
SlurmdParameters=config_overrides
NodeName=n[0-1] NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=[16820-16821] CPUs=2 RealMemory=4000
PartitionName=low Nodes=n[0-1] Default=YES MaxTime=01:00:00 PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes=n[0-1] MaxTime=01:00:00 PriorityTier=10 PreemptMode=OFF
EOF
if ! pgrep -x munged > /dev/null; then
    chown munge: /run/munge
    setpriv --reuid=munge --regid=munge --init-groups munged
    munge_id=$(cat /run/munge/munged.pid)
fi
slurmctld -D > /dev/null 2>&1 & started+=($!)
slurmd -D -N n0 > /dev/null 2>&1 & started+=($!)
slurmd -D -N n1 > /dev/null 2>&1 & started+=($!)

until_true() { # WHAT SECONDS COMMAND...: waits, or tells what did not come and what the job said
    local what=$1 end=$((SECONDS + $2))
    shift 2
    until "$@" > /dev/null 2>&1; do
        if ((SECONDS > end)); then
            echo "not within the time: $what" >&2
            tail -n 20 "$base"/log/slurmctld.log "$base"/job.log >&2
            exit 1
        fi
        sleep 0.5
    done
    echo "$what"
}
are_idle() { [ "$(sinfo --noheader --format=%T | sort -u)" = idle ]; }
has_said() { [ "$(grep -c "$1" "$base/job.log")" -ge "$2" ]; }
is_over() { scontrol show job "$job" | grep -q "JobState=$1"; }
start_now() { # a job that is queued again waits for two minutes by itself
    scontrol update "JobId=$job" StartTime=now || true
    has_said "$1" "$2"
}
until_true "two nodes are idle" 60 are_idle

"$command" pack synthetic --identities 24 --images 8 --size 24 --out "$base/set" > /dev/null
cat > "$base/config.yaml" << EOF
run_dir: $base/run
data: {train: $base/set, image_size: 24}
backbone: {name: r18, width: 8, embedding_dim: 16, compile: false, autocast: float32}
schedule: {epochs: 200, batch_size: 16}
report: {every_steps: 20, prometheus: false}
save_every_steps: 200
EOF
export PARTIAL_FC=$command PARTIAL_FC_NPROC=1 PARTIAL_FC_MEET=127.0.0.1:23456 OMP_NUM_THREADS=1
job=$(sbatch --parsable --nodes=2 --cpus-per-task=2 --time=30 --output="$base/job.log" \
    launch/cluster/slurm.sbatch "$base/config.yaml" --address 127.0.0.1)
until_true "job $job trains on two nodes" 120 has_said "^step " 2

sbatch --partition=high --nodes=2 --cpus-per-task=2 --output=/dev/null --wrap "sleep 3" > /dev/null
until_true "it was told to make room, saved, and was queued again" 60 has_said "exit code 143" 1
until_true "it goes on where it was" 120 start_now "going on after step" 1
until_true "it trains on" 60 has_said "^step .*images/s" $(($(grep -c "^step .*images/s" "$base/job.log") + 5))

scancel --batch --signal=USR1 "$job"
until_true "it was told that its time is over, saved, and was queued again" 60 has_said "exit code 143" 2
until_true "it goes on once more" 120 start_now "going on after step" 2
until_true "it is done" 240 is_over COMPLETED
grep -E "stopped after|going on|exit code" "$base/job.log"
[ -d "$base/run/checkpoints/step-00002400" ]
echo "the last of its 2,400 steps is saved"
