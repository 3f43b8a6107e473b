#!/usr/bin/env bash
# A private SLURM cluster on this one machine, to try a sweep on or to test with.
#
#   scripts/local_slurm.sh up       start it, or what of it has died; twice does no harm
#   scripts/local_slurm.sh status   its nodes and jobs
#   scripts/local_slurm.sh down     end its jobs and daemons, and remove its folder
#
# After `up`, tell the shell where it is:   export SLURM_CONF=<what up prints>
#
# On Debian 12 it needs (as root; the cluster itself runs as any user):
#   apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
#   apt-get install -y --no-install-recommends slurmdbd mariadb-server     # for sacct; may be missing
# All it writes is in one folder. Nothing of a SLURM that may run on this machine is touched.
#
# Settings, from the environment, at the first `up`:
#   LOCAL_SLURM_DIR     the folder; a short path, for sockets lie in it   (/tmp/local_slurm.<user id>)
#   LOCAL_SLURM_NODES   how many nodes it has, all on this machine        (2)
#   LOCAL_SLURM_CPUS    how many cores each node says it has              (2)
#   LOCAL_SLURM_MEMORY  how many MB each node says it has; no limit       (4000)
#   LOCAL_SLURM_GPUS    how many GPUs each node says it has; there are none (0)
#   LOCAL_SLURM_PORT    first of the TCP ports, on the loopback only      (from 21000 on, free ones)
#   LOCAL_SLURM_SILENCE seconds after which a silent node is down         (20)
set -euo pipefail

dir=${LOCAL_SLURM_DIR:-/tmp/local_slurm.$(id -u)}
me=$(id -un)
PATH=$PATH:/usr/sbin:/sbin
export SLURM_CONF=$dir/slurm.conf
export MYSQL_UNIX_PORT=$dir/run/mysql.sock # the only way to tell slurmdbd

fail() { echo "local_slurm: $*" >&2; exit 1; }

installed() { command -v "$1" >/dev/null; }

# Whether the process that a pid file names is alive and of this cluster: numbers come again.
lives() {
  local pid
  pid=$(cat "$dir/run/$1.pid" 2>/dev/null) && [ -n "$pid" ] && of_cluster "$pid"
}
of_cluster() { tr '\0' '\n' 2>/dev/null <"/proc/$1/environ" | grep -qxF "SLURM_CONF=$SLURM_CONF"; }

# until_true SECONDS WHAT COMMAND…
until_true() {
  local tries=$(($1 * 10)) what=$2
  shift 2
  while ! "$@" >/dev/null 2>&1; do
    [ $((tries -= 1)) -gt 0 ] || fail "$what does not answer; see $dir/log"
    sleep 0.1
  done
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_ports() { # the first of a block of $1 ports that nobody listens at
  local first port
  for ((first = 21000; first < 32000; first += 100)); do
    for ((port = first; port < first + $1; port++)); do answers "$port" && continue 2; done
    echo "$first"
    return
  done
  fail "no free ports"
}

configure() {
  local nodes=${LOCAL_SLURM_NODES:-2} host port n
  host=$(uname -n)
  host=${host%%.*}
  port=${LOCAL_SLURM_PORT:-$(free_ports $((nodes + 10)))}
  [ -z "$(ls -A "$dir")" ] || [ -e "$dir/begun" ] || fail "LOCAL_SLURM_DIR=$dir: holds something else"
  touch "$dir/begun"
  mkdir -p "$dir"/{run,log,state,spool,munge}
  (umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
  cat >"$dir/slurm.conf" <<EOF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/munge
CredType=cred/munge
# A job that is queued again waits for its old credentials to expire.
AuthInfo=socket=$dir/run/munge.sock,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
MailProg=/bin/true
# Neither systemd nor control groups are needed, and so no limit on memory is kept.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
# Scheduling by the second, not by the half minute.
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
# What the partition "high" preempts is told by its own signal, and queued again.
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=5
MinJobAge=300
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=${LOCAL_SLURM_SILENCE:-20}
EOF
  if installed slurmdbd && installed mariadbd && installed mariadb-install-db; then
    cat >>"$dir/slurm.conf" <<EOF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((port + 1))
AccountingStoragePass=$dir/run/munge.sock
EOF
    (umask 077 && cat >"$dir/slurmdbd.conf" <<EOF
AuthType=auth/munge
AuthInfo=socket=$dir/run/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((port + 1))
SlurmUser=$me
LogFile=$dir/log/slurmdbd.log
PidFile=$dir/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=$me
StorageLoc=slurm_acct_db
EOF
    )
  fi
  local gpus=${LOCAL_SLURM_GPUS:-0} resources=
  if [ "$gpus" -gt 0 ]; then
    # A GPU is a device file whose name ends in its number. Consoles are; nobody opens them.
    echo "Name=gpu File=/dev/tty[0-$((gpus - 1))]" >"$dir/gres.conf"
    echo "GresTypes=gpu" >>"$dir/slurm.conf"
    resources=" Gres=gpu:$gpus"
  fi
  for ((n = 1; n <= nodes; n++)); do
    echo "NodeName=node$n NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 9 + n))" \
      "CPUs=${LOCAL_SLURM_CPUS:-2} RealMemory=${LOCAL_SLURM_MEMORY:-4000}$resources" \
      "State=UNKNOWN" >>"$dir/slurm.conf"
  done
  cat >>"$dir/slurm.conf" <<EOF
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=20
PartitionName=high Nodes=ALL Default=NO MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
EOF
  touch "$dir/local_slurm" # whole, and ours to remove
}

start_munge() {
  lives munge || munged --force --num-threads=2 --key-file="$dir/munge/key" \
    --socket="$dir/run/munge.sock" --pid-file="$dir/run/munge.pid" \
    --log-file="$dir/log/munge.log" --seed-file="$dir/munge/seed" 2>>"$dir/log/munge.log"
  until_true 10 munged munge -n -S "$dir/run/munge.sock"
}

start_accounting() {
  local port
  port=$(sed -n 's/^DbdPort=//p' "$dir/slurmdbd.conf")
  if ! [ -e "$dir/db.made" ]; then # without --debug-no-sync it takes ten times as long
    rm -rf "$dir/db"
    mariadb-install-db --no-defaults --user="$me" --datadir="$dir/db" --skip-test-db \
      --auth-root-authentication-method=socket --auth-root-socket-user="$me" \
      --debug-no-sync --innodb-log-file-size=10M >"$dir/log/db-install.log" 2>&1 ||
      fail "the data base could not be made; see $dir/log/db-install.log"
    touch "$dir/db.made"
  fi
  if ! lives db; then # not with ||: the shell would stay, and keep the lock
    setsid mariadbd --no-defaults --user="$me" --datadir="$dir/db" --debug-no-sync \
      --socket="$MYSQL_UNIX_PORT" --skip-networking --pid-file="$dir/run/db.pid" \
      --innodb-log-file-size=10M --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 \
      </dev/null >>"$dir/log/db.log" 2>&1 &
  fi
  until_true 30 mariadbd mariadb-admin --no-defaults -S "$MYSQL_UNIX_PORT" -u "$me" ping
  lives slurmdbd || slurmdbd
  until_true 30 "slurmdbd (port $port)" answers "$port" # sacctmgr would wait for minutes
  until_true 30 slurmdbd timeout 5 sacctmgr -n -i show cluster
}

nodes() { sed -n 's/^NodeName=\([^ ]*\).*/\1/p' "$dir/slurm.conf"; }

nodes_ready() { # those that an earlier fault has left down or drained are put back
  local states out
  states=$(timeout 5 sinfo -h -N -p main -o '%N %t')
  out=$(awk '$2 ~ /^(down|drain|drng)/ {sub(/\*/, "", $1); print $1}' <<<"$states" | paste -sd, -)
  [ -z "$out" ] || timeout 5 scontrol update "nodename=$out" state=resume || true
  [ "$(grep -cE ' (idle|mix|alloc|comp)$' <<<"$states")" = "$(nodes | wc -l)" ]
}

registered() { # jobs are accounted from then on
  timeout 5 sacctmgr -n -P show cluster where name=local format=ControlPort | grep -qvx 0
}

up() {
  local program node
  for program in munged slurmctld slurmd sbatch; do
    installed "$program" ||
      fail "$program is not installed: apt-get install slurmctld slurmd slurm-client munge"
  done
  [ ${#dir} -le 60 ] || fail "LOCAL_SLURM_DIR=$dir: too long a path for sockets; 60 letters at most"
  mkdir -p "$dir"
  exec 9>"$dir.lock"
  flock 9
  [ -e "$dir/local_slurm" ] || configure
  # Daemons must not keep the lock: 9>&-
  start_munge 9>&-
  [ ! -e "$dir/slurmdbd.conf" ] || start_accounting 9>&-
  lives slurmctld || slurmctld -f "$dir/slurm.conf" 9>&-
  until_true 30 slurmctld timeout 5 scontrol ping
  for node in $(nodes); do
    lives "slurmd-$node" || slurmd -f "$dir/slurm.conf" -N "$node" 9>&-
  done
  until_true 60 "one of the nodes" nodes_ready
  [ ! -e "$dir/slurmdbd.conf" ] || until_true 30 "the accounting" registered
  echo "export SLURM_CONF=$dir/slurm.conf"
}

status() {
  [ -e "$dir/slurm.conf" ] || fail "there is no cluster in $dir; start one: $0 up"
  timeout 10 sinfo || fail "the cluster in $dir does not answer; repair it: $0 up"
  timeout 10 squeue
}

stop() { # NAME SECONDS
  local pid tries=$(($2 * 10))
  lives "$1" || return 0
  pid=$(cat "$dir/run/$1.pid")
  kill "$pid" 2>/dev/null || true
  while of_cluster "$pid" && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
  ! of_cluster "$pid" || kill -9 "$pid" 2>/dev/null || true
}

down() {
  local node entry pid
  [ -e "$dir/local_slurm" ] || return 0
  if lives slurmctld; then
    timeout 10 scancel --user="$me" 2>/dev/null || true
    timeout 10 scancel --user="$me" --full --signal=KILL 2>/dev/null || true
    for _ in {1..80}; do
      [ -n "$(timeout 10 squeue -h 2>/dev/null)" ] || break
      sleep 0.1
    done
  fi
  for node in $(nodes); do stop "slurmd-$node" 5; done
  stop slurmctld 15
  stop slurmdbd 15
  stop db 20
  stop munge 5
  # What daemons that were killed have left: step daemons, and processes of jobs.
  for entry in /proc/[0-9]*; do
    pid=${entry#/proc/}
    of_cluster "$pid" || continue
    case $(cat "$entry/comm" 2>/dev/null) in
      slurm* | mariadbd | munged) kill -9 "$pid" 2>/dev/null || true ;;
      *) if tr '\0' '\n' 2>/dev/null <"$entry/environ" | grep -q '^SLURM_JOB_ID='; then
        kill -9 "$pid" 2>/dev/null || true
      fi ;;
    esac
  done
  rm -rf "$dir" "$dir.lock"
}

case ${1:-} in
  up) up ;;
  status) status ;;
  down) down ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"; exit 2 ;;
esac
