#!/usr/bin/env bash
# Runs the generators and fails if any file of the tree changed by that. Compares contents
# before and after, so it also works on a tree with uncommitted changes, and without git.
# The regenerated files are left in place: they are what has to be committed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sums() {
	find . \( -name .git -o -name bin -o -name dist \) -prune -o -type f -print0 |
		sort -z | xargs -0 sha256sum
}

before=$(sums)
go generate ./...
after=$(sums)
if [[ "$before" != "$after" ]]; then
	echo 'generated files were not current; they are now, commit them:' >&2
	diff <(printf '%s\n' "$before") <(printf '%s\n' "$after") |
		sed -n 's/^[<>] [0-9a-f]* [ *]\(.*\)$/  \1/p' | sort -u >&2
	exit 1
fi
