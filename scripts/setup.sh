#!/usr/bin/env bash
# Makes sure that what the tests and the demo need is on this machine.
#
# With apt-get and root it installs what is missing, without starting any service and
# without letting Debian create a PostgreSQL cluster of its own. Otherwise it prints
# exactly what to install and ends with 1. With everything there it says so and is quick.
#
# usage: scripts/setup.sh [servers]    with the stores' servers, which only the tests need; some
#                                      are built, which takes minutes, once
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly pg_tools=(initdb postgres pg_ctl pg_basebackup pg_rewind pg_controldata pg_waldump)
readonly pg_min=12 pg_tested=15
readonly policy=/usr/sbin/policy-rc.d
readonly createcluster=/etc/postgresql-common/createcluster.conf

work=$(mktemp -d)
policy_ours=
cleanup() {
	if [[ -n "$policy_ours" ]]; then
		rm -f "$policy"
		if [[ -e "$work/policy-rc.d" ]]; then cp -p "$work/policy-rc.d" "$policy"; fi
	fi
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# postgres_folder prints a folder that holds all of PostgreSQL's programs that we use:
# the tested version first, then the newest one, then whatever is in PATH.
postgres_folder() {
	local dir tool major
	local -a candidates=("/usr/lib/postgresql/$pg_tested/bin" "/usr/pgsql-$pg_tested/bin")
	mapfile -t -O "${#candidates[@]}" candidates < <(
		find /usr/lib/postgresql/*/bin /usr/pgsql-*/bin -maxdepth 0 2>/dev/null | sort -rV
	)
	if tool=$(command -v initdb); then candidates+=("$(dirname "$(readlink -f "$tool")")"); fi
	for dir in "${candidates[@]}"; do
		for tool in "${pg_tools[@]}"; do
			[[ -x "$dir/$tool" ]] || continue 2
		done
		major=$("$dir/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
		if ((major >= pg_min)); then
			printf '%s\n' "$dir"
			return
		fi
	done
	return 1
}

has_locale() { locale -a 2>/dev/null | grep -qiE "^$1\.utf-?8\$"; }

# missing prints one line per thing that isn't there: the Debian packages that bring it,
# a tab, and what it is for.
missing() {
	command -v go >/dev/null ||
		printf '%s\t%s\n' - "the Go toolchain of go.mod's version or newer (https://go.dev/dl/)"
	postgres_folder >/dev/null ||
		printf '%s\t%s\n' "postgresql-$pg_tested" "PostgreSQL $pg_min or newer ($pg_tested is what is tested), server and client programs"
	if ! command -v gcc >/dev/null || ! [[ -e /usr/include/stdlib.h ]]; then
		printf '%s\t%s\n' 'gcc libc6-dev' 'a C compiler with its headers, for the race detector'
	fi
	[[ -e /etc/ssl/certs/ca-certificates.crt || -d /etc/pki ]] ||
		printf '%s\t%s\n' ca-certificates 'certificates, to download Go modules'
}

# hold_services keeps the packages that are being installed from starting anything.
hold_services() {
	if [[ -n "$policy_ours" ]]; then return; fi
	if [[ -e "$policy" ]]; then cp -p "$policy" "$work/policy-rc.d"; fi
	policy_ours=1
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	# Debian would otherwise create and start a cluster on port 5432.
	mkdir -p "$(dirname "$createcluster")"
	if ! grep -qsE '^[[:space:]]*create_main_cluster[[:space:]]*=[[:space:]]*false' "$createcluster"; then
		printf 'create_main_cluster = false\n' >>"$createcluster"
		echo "setup: wrote create_main_cluster = false to $createcluster"
	fi
}

run_logged() {
	if ! "$@" >"$work/log" 2>&1; then
		cat "$work/log" >&2
		echo "setup: this failed: $*" >&2
		exit 1
	fi
}

install_packages() {
	echo "setup: installing $*"
	hold_services
	export DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1
	local -a options=(-y -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold)
	run_logged apt-get "${options[@]}" update
	run_logged apt-get "${options[@]}" --no-install-recommends install "$@"
}

# document_locale generates the locale of a configuration that the tests load. It is a
# courtesy where this script may install things; elsewhere the tests replace the locale.
document_locale() {
	if has_locale zh_CN; then return; fi
	if ! command -v localedef >/dev/null || ! [[ -e /usr/share/i18n/locales/zh_CN ]]; then
		install_packages locales
	fi
	run_logged localedef -i zh_CN -f UTF-8 zh_CN.UTF-8
}

has_etcd34() { "${REGENT_ETCD_34:-etcd}" --version 2>/dev/null | grep -q '^etcd Version: 3\.4\.'; }

# The peer of mixed clusters, with its clients of etcd and Consul. Without its Recommends and
# with hold_services, no service of it is started.
readonly patroni_packages=(patroni python3-etcd python3-consul)

# has_patroni asks the interpreter that Patroni itself runs on whether it has the clients.
has_patroni() {
	local program
	program=$(command -v patroni) && command -v patronictl >/dev/null || return 1
	"$(sed -n '1s/^#! *//p' "$program")" -c 'import etcd, consul' 2>/dev/null
}

has_haproxy() { [[ -x /usr/sbin/haproxy ]] || command -v haproxy >/dev/null; }

# store_servers gets the servers of stores, Patroni and HAProxy. What can't be had is a failure in CI only:
# elsewhere the tests that need it say so and are skipped.
store_servers() {
	local script code=0
	local -a packages=()
	if ! has_etcd34; then packages+=(etcd-server); fi
	if ! has_patroni; then packages+=("${patroni_packages[@]}"); fi
	if ! has_haproxy; then packages+=(haproxy); fi
	if ((${#packages[@]} > 0)) && [[ -n "$1" ]]; then
		apt-get -q update >/dev/null 2>&1 || true # a bare machine knows no packages yet
		if apt-cache show "${packages[@]}" >/dev/null 2>&1; then install_packages "${packages[@]}"; fi
	fi
	if ! has_etcd34; then
		echo 'setup: no etcd 3.4 (Debian 12: apt-get install etcd-server; another: REGENT_ETCD_34)' >&2
		code=1
	fi
	if ! has_patroni; then
		echo 'setup: no Patroni for mixed clusters (Debian 12: apt-get install patroni python3-etcd python3-consul)' >&2
		code=1
	fi
	if ! has_haproxy; then
		echo 'setup: no HAProxy, which clients use (Debian: apt-get install haproxy)' >&2
		code=1
	fi
	for script in scripts/etcd-server.sh scripts/consul-server.sh; do
		if ! "$script" >/dev/null; then
			echo "setup: $script failed" >&2
			code=1
		fi
	done
	if ((code != 0)) && [[ -n "${CI:-}" ]]; then exit 1; fi
	if ((code == 0)); then echo "setup: the stores' servers, Patroni and HAProxy are here"; fi
}

# report prints what is missing, as lines of missing, for a person who will install it.
report() {
	local names what
	echo 'setup: this machine lacks:'
	while IFS=$'\t' read -r names what; do
		printf '  %s\n' "$what"
		if [[ $names != - ]]; then printf '      Debian: apt-get install %s\n' "$names"; fi
	done
	echo 'setup: install it, or run this again as root on Debian to have it installed'
}

main() {
	local lines may_install=
	if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then may_install=1; fi
	lines=$(missing)
	if [[ -n "$lines" && (-z "$may_install" || "$lines" == -* || "$lines" == *$'\n'-*) ]]; then
		report <<<"$lines" >&2
		exit 1
	fi
	if [[ -n "$lines" ]]; then
		local -a packages
		read -r -a packages <<<"$(cut -f 1 <<<"$lines" | tr '\n' ' ')"
		install_packages "${packages[@]}"
		lines=$(missing)
		if [[ -n "$lines" ]]; then
			echo 'setup: still missing after the installation:' >&2
			report <<<"$lines" >&2
			exit 1
		fi
	fi
	if [[ -n "$may_install" ]]; then document_locale; fi
	if [[ ${1:-} == servers ]]; then store_servers "$may_install"; fi
	echo "setup: complete; PostgreSQL in $(postgres_folder)"
}

main "$@"
