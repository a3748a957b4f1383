#!/usr/bin/env bash
# All that CI runs, fast things first. Every section is printed with its time; a failing one
# doesn't keep the later ones from running (except for setup and build), and the end says
# which failed. With CI set, a skipped test counts as a failure.
#
# Tests get a temporary folder of their own. What they leave in it, and processes that still
# work in it, count as failures too, and are removed.
#
# Whoever sees only the end of the output sees why it failed: the complaints of failed tests, or
# the last lines of a section without tests, are printed again there, the failed sections last.
#
# usage: scripts/test.sh [SECTION…]    (default: all)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly P=${P:-2}
readonly all_sections=(setup build lint architecture generated unit race live)
started=$SECONDS
failed=()

# roomy prints where the tests work: in memory if there is room and programs may run from
# it, because making and removing data directories on a disk takes most of their time.
roomy() {
	local free
	free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
	if ((${free:-0} > 6 * 1024 * 1024)) && ! grep -q ' /dev/shm .*noexec' /proc/mounts; then
		echo /dev/shm
	else
		echo /tmp
	fi
}

TMPDIR=$(mktemp -d "${TMPDIR:-$(roomy)}/rt.XXXXXX")
chmod 1777 "$TMPDIR" # tests that start PostgreSQL run as another user than root
export TMPDIR

# Why sections failed, section by section; the output of the running one, and what it left behind.
NOTES=$(TMPDIR=/tmp mktemp -d)
readonly NOTES REASONS=$NOTES/reasons OUTPUT=$NOTES/output LEFT=$NOTES/left

# segments prints the shared memory of PostgreSQL servers that are dead, one a line. A server that
# is killed leaves a segment in /dev/shm behind, which nobody ever frees, unless it was told to
# keep it in its data directory (dynamic_shared_memory_type = mmap).
segments() {
	local path
	for path in /dev/shm/PostgreSQL.*; do
		[[ -e "$path" ]] || continue
		grep -qsF "$path" /proc/[0-9]*/maps || printf '%s\n' "$path"
	done
}
old_segments=$(segments)

# free_segments frees those that came since the beginning. One or two are no failure: initdb runs a
# server before there is a configuration that could say where to keep it, and tests kill that one
# too. More are. The small
# System V segments, which every server has, it frees without a word: tests that run as root have
# a namespace of their own for them, others can't help it.
free_segments() {
	local left=0 path id
	while read -r path; do
		[[ -n "$path" && $'\n'"$old_segments"$'\n' != *$'\n'"$path"$'\n'* ]] || continue
		printf 'freed: %s, shared memory of a server that was killed and does not keep it in its folder\n' "$path" >&2
		rm -f "$path"
		left=$((left + 1))
	done < <(segments)
	# id, of PostgreSQL's size, attached to nothing, made by a process that is gone
	while read -r id; do ipcrm -m "$id" 2>/dev/null || true; done < <(
		awk 'NR > 1 && $4 == 56 && $7 == 0 && system("test -d /proc/" $5) != 0 { print $2 }' /proc/sysvipc/shm 2>/dev/null
	)
	((left <= 2))
}

# ours prints the processes that work in, or were started from, the temporary folder.
ours() {
	local dir target
	for dir in /proc/[0-9]*; do
		for target in "$dir/cwd" "$dir/exe"; do
			if [[ "$(readlink "$target" 2>/dev/null)/" == "$TMPDIR"/* ]]; then
				printf '%s %s\n' "${dir#/proc/}" "$(tr '\0' ' ' <"$dir/cmdline" 2>/dev/null)"
				break
			fi
		done
	done
}

# sweep ends those processes, empties the folder, and fails if there was anything.
sweep() {
	local left=0 pid line entry
	while read -r pid line; do
		printf 'left behind: process %s %s\n' "$pid" "$line" >&2
		kill -KILL "$pid" 2>/dev/null || true
		left=1
	done < <(ours)
	for entry in "$TMPDIR"/* "$TMPDIR"/.[!.]*; do
		[[ -e "$entry" || -L "$entry" ]] || continue
		printf 'left behind: %s\n' "$entry" >&2
		rm -rf "$entry"
		left=1
	done
	free_segments || left=1
	return "$left"
}

finish() {
	sweep 2>/dev/null || true
	rm -rf "$TMPDIR" "$NOTES"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

tests() { # tests SKIPS-MODE ARGUMENTS-OF-GO-TEST…
	local skips=$1
	shift
	go build -o "$TMPDIR/testreport" ./scripts/testreport
	local code=0
	go test -json -p "$P" "$@" | "$TMPDIR/testreport" -skips "$skips" -failures "$REASONS" || code=1
	rm -f "$TMPDIR/testreport"
	return "$code"
}

# concurrent prints the packages in which something runs at the same time as something else.
concurrent() {
	grep -rlE --include='*.go' --exclude-dir=testdata --exclude-dir=bin \
		'^[[:space:]]*(go (func|[a-zA-Z_.]+\()|(import )?"(sync|sync/atomic|testing/synctest)"$)' . |
		xargs -r -n 1 dirname | sort -u
}

section_setup() { scripts/setup.sh servers; }
section_build() { make build; }
section_lint() { make lint; }
section_architecture() { tests fail -count=1 ./internal/archtest/; }
section_generated() { scripts/check-generated.sh; }
section_unit() { tests hide -short -timeout 5m ./...; }
# What runs beside what in these shows only in their long tests, which all run under the detector
# and not again without it.
readonly RACED=(./dcs/embedded ./internal/agent)
# skips says what a skipped test is.
skips() { if [[ -n "${CI:-}" ]]; then echo fail; else echo report; fi; }

section_race() {
	local -a packages
	mapfile -t packages < <(concurrent)
	CGO_ENABLED=1 tests hide -short -race -timeout 15m "${packages[@]}"
	CGO_ENABLED=1 tests "$(skips)" -race -count=1 -p 1 -timeout 15m "${RACED[@]}"
}
section_live() {
	local -a packages
	mapfile -t packages < <(go list ./... | grep -vxF "$(go list "${RACED[@]}")")
	# One package at a time: they start whole clusters, and watch the clock.
	tests "$(skips)" -count=1 -p 1 -timeout 20m "${packages[@]}"
}

run_section() {
	local name=$1 begun=$SECONDS code=0 known printer tries
	printf '\n== %s\n' "$name"
	printf '== %s\n' "$name" >>"$REASONS"
	known=$(wc -l <"$REASONS")
	# A subshell of its own, so that a failing command inside ends the section; not in a
	# condition, where bash would go on after a failure.
	exec 3> >(tee "$OUTPUT")
	printer=$!
	set +e
	(
		set -e
		"section_$name"
	) >&3 2>&1 3>&-
	code=$?
	set -e
	exec 3>&-
	sweep 2>"$LEFT" || code=1 # before waiting for the printer: what was left may still speak to it
	cat "$LEFT" >&2
	for ((tries = 0; tries < 50; tries++)); do
		kill -0 "$printer" 2>/dev/null || break
		sleep 0.1
	done
	if ((code == 0)); then
		sed -i '$d' "$REASONS"
	elif [[ -s "$LEFT" ]]; then
		cut -c 1-300 "$LEFT" | head -n 15 >>"$REASONS"
	elif (($(wc -l <"$REASONS") == known)); then # no tests: the end of what it said
		tail -n 15 "$OUTPUT" | cut -c 1-300 | sed 's/^/    /' >>"$REASONS"
	fi
	if ((code == 0)); then
		printf '== %s: ok, %d s\n' "$name" $((SECONDS - begun))
	else
		printf '== %s: FAILED, %d s\n' "$name" $((SECONDS - begun))
		failed+=("$name")
	fi
	return 0
}

main() {
	local name
	local -a sections=("$@")
	if ((${#sections[@]} == 0)); then sections=("${all_sections[@]}"); fi
	for name in "${sections[@]}"; do
		if ! declare -F "section_$name" >/dev/null; then
			printf 'no section %s; there are: %s\n' "$name" "${all_sections[*]}" >&2
			exit 2
		fi
	done
	for name in "${sections[@]}"; do
		run_section "$name"
		case "$name,${failed[*]}" in setup,setup | build,build) break ;; esac
	done
	printf '\n'
	if ((${#failed[@]} > 0)); then
		printf 'WHY:\n'
		cat "$REASONS"
		printf '\nFAILED: %s (%d s)\n' "${failed[*]}" $((SECONDS - started))
		exit 1
	fi
	printf 'all passed: %s (%d s)\n' "${sections[*]}" $((SECONDS - started))
}

main "$@"
