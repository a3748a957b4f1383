// Package etcdtest runs throwaway etcd servers for tests: one, or a cluster of three whose
// members can be killed, stopped and cut off from each other.
package etcdtest
