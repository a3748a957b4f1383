// Package clients holds nothing but tests: what users put in front of their members follows the
// primary. HAProxy asks the members' REST API as in the example that comes with Patroni, a DSN
// with several hosts asks the servers. vip-manager isn't among them: Debian's speaks etcd's v2 API
// only, in which neither Patroni's etcd3 keys nor Regent's can be seen.
package clients
