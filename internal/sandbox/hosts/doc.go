// Package hosts gives a sandbox's nodes and store servers machines of their own: each has a
// network namespace with an address, joined to the others by a router that can be told to drop,
// delay or lose what one sends to another.
//
//	program ──▶ Enter ── namespaces of user, process, mount, network ──▶ init ──▶ the program again
//	                                                                              │ Raise
//	             n1 ──veth──┐                                                     ▼
//	             n2 ──veth──┼── the program's own namespace: the router ◀── Site: hosts, cluster, stores
//	             s1 ──veth──┘      rules: from n1 to n2 ✂, s1 to n1 250 ms
//
// Guarantees:
//   - It takes no root: a user namespace in which the caller keeps its own uid, which PostgreSQL
//     accepts, and has the rights that it takes to make networks and mount small disks. What runs on
//     a host has none of these rights. The machine's own network is neither touched nor reached.
//   - The program itself reaches every host, whatever is cut: its packets start at the router, and
//     rules name what hosts send to each other.
//   - Nothing stays behind. Namespaces have no names and end with their processes, and those end
//     with the init, which ends with the program or with whoever started it, by whatever signal.
//     Files are the business of whoever made their folder, as with every sandbox.
//
// Cutting is silent, as with a pulled cable: no packet and no error comes back.
package hosts
