// Package tlsconf makes the TLS that the members of a cluster speak with each
// other, from a shared secret alone or from certificate files.
//
// From a secret: the key of a certificate authority is derived from it (HKDF,
// Ed25519), so every node that knows the secret can issue itself a certificate for
// its own name and check everybody else's. Nothing is stored or exchanged. The
// price: whoever knows the secret is a member, under any name. The secret is
// membership.
//
// The certificates' validity spans centuries and is checked at a fixed time. A
// database cluster must not fall apart because a clock was wrong when it booted.
package tlsconf
