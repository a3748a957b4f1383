#!/usr/bin/env bash
# Prints the path of the etcd 3.6 server that the tests use, and builds it first where it isn't
# there yet: about a minute on two cores, once, into a folder outside the clone. Whatever it has
# to say besides goes to standard error. The module below internal/tools/etcd pins what is built.
#
#	etcd=$(scripts/etcd-server.sh)
#
# A server of one's own: REGENT_ETCD_36. (3.4 is Debian's etcd-server, or REGENT_ETCD_34.)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -n "${REGENT_ETCD_36:-}" ]]; then
	"$REGENT_ETCD_36" --version >/dev/null
	printf '%s\n' "$REGENT_ETCD_36"
	exit
fi

module=internal/tools/etcd
version=$(awk '$1 == "go.etcd.io/etcd/server/v3" { print substr($2, 2); exit }' "$module/go.mod")
folder=${XDG_CACHE_HOME:-$HOME/.cache}/regent/etcd-$version
binary=$folder/etcd
if [[ ! -x "$binary" ]]; then
	mkdir -p "$folder"
	exec 9>"$folder/lock"
	flock 9 # somebody else may be building it
fi
if [[ ! -x "$binary" ]]; then
	echo "etcd-server: building etcd $version into $folder, which takes a minute or two" >&2
	new=$(mktemp "$folder/etcd.XXXXXX")
	trap 'rm -f "$new"' EXIT
	CGO_ENABLED=0 nice -n 10 go build -C "$module" -mod=readonly -trimpath -ldflags '-s -w' -o "$new" go.etcd.io/etcd/server/v3 >&2
	"$new" --version >&2
	chmod 755 "$new"
	mv "$new" "$binary"
fi
printf '%s\n' "$binary"
