package etcd3

import "github.com/pgregent/regent/dcs/advice"

// book is what to do about what etcd says, and doesn't say.
var book = advice.Book{Section: "etcd3", Scheme: "etcd3.protocol", Own: []advice.Case{
	{Texts: []string{"etcdserver: no leader", "etcdserver: request timed out", "etcdserver: leader changed"},
		Do: "etcd needs a majority of its servers: start the others; `etcdctl endpoint status --cluster` shows who leads"},
	{Texts: []string{"invalid user ID or password"}, Do: "correct etcd3.username and etcd3.password, and reload"},
	{Texts: []string{"user name is empty"}, Do: "etcd wants a login: set etcd3.username and etcd3.password"},
	{Texts: []string{"etcdserver: permission denied"},
		Do: "the user may not use these keys: `etcdctl role grant-permission ROLE readwrite --prefix=true` for the cluster's folder"},
	{Texts: []string{"database space exceeded"}, Do: "etcd is full: compact and defragment it, then `etcdctl alarm disarm`"},
	{Texts: []string{"context deadline exceeded"},
		Do: "no answer in time: etcd lacks a majority, is overloaded or isn't reached; `etcdctl endpoint status --cluster` shows which"},
}}
