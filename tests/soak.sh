#!/usr/bin/env bash
# The soak of `./test.sh --long`: whole clusters are built, broken and taken down again and again; a
# test that fails once in twenty rounds is a defect.
set -euo pipefail
cd "$(dirname "$0")/.."
printf '==> everybody is killed at each line of a move\n'
cargo nextest run --package cluster-tests --run-ignored only everybody_at_each_line
printf '==> somebody is killed at each step of what brings shards elsewhere\n'
cargo nextest run --package cluster-tests --run-ignored only somebody_else_at_each_step
printf '==> a backend that is lost at every byte of a reply, and much of everything hostile\n'
MAINSTAY_THOROUGH=1 cargo nextest run --package proxy
for round in $(seq 1 20); do
  # Sequences of commands that nobody has sent before, and faults in another order.
  export MAINSTAY_FUZZ_SEED=$((round * 100000)) STORE_CHAOS_SEED=$RANDOM PROPTEST_RNG_SEED=$RANDOM
  printf '==> seeds: %s, %s, %s\n' "$MAINSTAY_FUZZ_SEED" "$STORE_CHAOS_SEED" "$PROPTEST_RNG_SEED"
  printf '==> round %s of 20\n' "$round"
  cargo nextest run --package cluster-tests --package chaos-tests --package installer --package proxy --package resp --package agent --package store
  # Every fault, in a database that keeps nothing on disk and in shards that do; where a disk is full those refuse
  # writes, and say so.
  cargo xtask chaos --seconds 120 --seed "$round" --faults all
  cargo xtask chaos --seconds 120 --seed "$round" --shards 2 --persistence aof \
    --faults move,engine,engine-stop,proxy,exec,exec-stop,node,partition,slow-disk,clock
done
