// Package pyfmt prints JSON values the way Patroni's tool does, because scripts read
// its output: JSON with blanks after separators and ASCII only, YAML as PyYAML's safe
// dumper writes it (block or flow style, sorted keys, 200 columns).
//
// Values keep the order of their keys and the spelling of their integers. Nothing here
// reads YAML, and nothing is made for speed.
package pyfmt
