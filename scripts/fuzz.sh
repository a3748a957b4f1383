#!/usr/bin/env bash
# Runs every fuzz target of the tree for the given time (go test runs one at a time).
# usage: scripts/fuzz.sh [10s]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

time=${1:-10s}
found=0
while IFS=: read -r file line; do
	target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/' <<<"$line")
	package=./$(dirname "$file")
	found=$((found + 1))
	printf '== %s %s\n' "$package" "$target"
	go test -run '^$' -fuzz "^${target}\$" -fuzztime "$time" -fuzzminimizetime 10x "$package"
done < <(grep -rE --include='*_test.go' --exclude-dir=testdata '^func Fuzz[A-Za-z0-9_]*\(' . | sed 's|^\./||')
printf '%d fuzz targets, %s each\n' "$found" "$time"
