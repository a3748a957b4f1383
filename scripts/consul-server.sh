#!/usr/bin/env bash
# Prints the path of the Consul server that the tests use, and builds it first where it isn't
# there yet: four to eight minutes on two cores, once, into a folder outside the clone.
# Whatever it has to say besides goes to standard error.
#
#	consul=$(scripts/consul-server.sh)
#
# The module below internal/tools/consul pins what is built. A server of one's own: CONSUL_BIN.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -n "${CONSUL_BIN:-}" ]]; then
	"$CONSUL_BIN" version >/dev/null
	printf '%s\n' "$CONSUL_BIN"
	exit
fi

module=internal/tools/consul
version=$(awk '$1 == "github.com/hashicorp/consul" { print substr($2, 2); exit }' "$module/go.mod")
folder=${XDG_CACHE_HOME:-$HOME/.cache}/regent/consul-$version
binary=$folder/consul
if [[ -x "$binary" ]]; then
	printf '%s\n' "$binary"
	exit
fi

mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9 # somebody else may be building it
if [[ ! -x "$binary" ]]; then
	echo "consul-server: building Consul $version into $folder, which takes some minutes" >&2
	new=$(mktemp "$folder/consul.XXXXXX")
	trap 'rm -f "$new"' EXIT
	# No symbols: it is never debugged, and the linker's memory is halved.
	nice -n 10 go build -C "$module" -mod=readonly -trimpath -ldflags '-s -w' -o "$new" github.com/hashicorp/consul >&2
	"$new" version >&2
	chmod 755 "$new"
	mv "$new" "$binary"
fi
printf '%s\n' "$binary"
