package consul

import "github.com/pgregent/regent/dcs/advice"

// book is what to do about what Consul says, and doesn't say.
var book = advice.Book{Section: "consul", Scheme: "consul.scheme", Own: []advice.Case{
	{Texts: []string{"No cluster leader"},
		Do: "Consul needs a majority of its servers: start the others; `consul operator raft list-peers` shows who leads"},
	{Texts: []string{"No known Consul servers", "No path to datacenter"},
		Do: "this Consul agent knows no server: join it to them, or correct consul.dc"},
	{Texts: []string{"ACL not found"}, Do: "Consul doesn't know consul.token: correct it, and reload"},
	{Texts: []string{"Permission denied", "may not read all keys"},
		Do: `consul.token needs a policy with key_prefix of the cluster's folder and session_prefix "", both "write"`},
	{Texts: []string{"context deadline exceeded", "Client.Timeout exceeded"},
		Do: "no answer in time: Consul lacks a majority, is overloaded or isn't reached; `consul operator raft list-peers` shows which"},
}}
