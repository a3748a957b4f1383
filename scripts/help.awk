# Prints the targets of a Makefile that carry a "## sentence", under their "##@ Heading"s.
BEGIN { FS = ":.*## "; print "usage: make TARGET [ARGS=…] [P=2]" }
/^##@ / { printf "\n%s\n", substr($0, 5); next }
/^[a-z][a-z0-9-]*:.*## / { printf "  %-16s %s\n", $1, $2 }
