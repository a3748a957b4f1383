#!/usr/bin/env bash
# Prints the Go files of the tree, NUL-separated. Test data is left out: some of it is wrong on purpose.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
find . \( -name .git -o -name bin -o -name dist -o -name testdata \) -prune -o -name '*.go' -type f -print0
