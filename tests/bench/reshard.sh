#!/bin/sh
# Reshards a made-up 5 GB checkpoint from TP1 to TP4 beside `cp` of the same bytes, both flushed to
# the disk, three times in turn. Usage: tests/bench/reshard.sh [FOLDER], which needs 20 GB.
set -eu
cd "$(dirname "$0")/../.."
folder=$(mktemp -d "${1:-.}/reshard.XXXXXX")
trap 'rm -rf "$folder"' EXIT
SFT_BENCH_FOLDER=$(realpath "$folder") cargo test --release --test it \
    checkpoint::speed -- --ignored --nocapture
