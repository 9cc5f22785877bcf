#!/usr/bin/env bash
# The soak of `./test.sh --long`: whole clusters are built, broken and taken down again and again; a
# test that fails once in twenty rounds is a defect.
set -euo pipefail
cd "$(dirname "$0")/.."
for round in $(seq 1 20); do
  printf '==> round %s of 20\n' "$round"
  cargo nextest run --package cluster-tests --package installer --package proxy --package agent --package store
done
