package config

import "strings"

// The sections of the stores. A store that isn't built in is refused as a whole, so
// the rows of the others matter for their reference and their variables only.

// storeNames in the order in which Patroni looks for them when several are given.
func storeNames() []string {
	return []string{"consul", "etcd", "etcd3", "exhibitor", "kubernetes", "raft", "zookeeper"}
}

func storeKeys() []key {
	rows := []key{
		{path: "raft", typ: tSection, restart: true, doc: "The store inside the agents. Patroni's own raft can't be joined; the section's keys are the same."},
		{path: "raft.self_addr", typ: tAddr, env: "RAFT_SELF_ADDR", restart: true, doc: "This node's address as the others reach it. Required on a node that votes."},
		{path: "raft.bind_addr", typ: tAddr, def: "= self_addr", env: "RAFT_BIND_ADDR", restart: true, doc: "Where to listen, if not on self_addr."},
		{path: "raft.partner_addrs", typ: tStrings, env: "RAFT_PARTNER_ADDRS", restart: true, doc: "The other nodes' addresses."},
		{path: "raft.data_dir", typ: tPath, def: "RUN_DIR/raft", env: "RAFT_DATA_DIR", restart: true, doc: "The store's folder. Never in the data directory."},
		{path: "raft.password", typ: tSecret, env: "RAFT_PASSWORD", doc: "The cluster secret. With it the port speaks TLS and members prove who they are; without it everything is plain text. Setting or removing it takes a restart."},
	}
	for _, k := range strings.Fields("min_timeout max_timeout connection_timeout append_entries_period connection_retry_time leader_fallback_timeout") {
		rows = append(rows, key{
			path: "raft." + k, typ: tSeconds, env: "RAFT_" + strings.ToUpper(k), status: moot,
			doc: "Timing of Patroni's raft; see `regent.raft`.",
		})
	}
	etcd := "host hosts url proxy srv discovery_srv srv_domain srv_suffix use_proxies protocol username password cacert cert key"
	for _, s := range []struct{ name, keys, doc string }{
		{"etcd", etcd, "etcd, API version 2."},
		{"etcd3", etcd + " key_password", "etcd, API version 3."},
		{"consul", "host url port scheme token verify cacert cert key dc consistency checks register_service service_tags service_check_interval service_check_tls_server_name", "Consul."},
		{"zookeeper", "hosts use_ssl cacert cert key key_password verify set_acls auth_data exhibitor", "ZooKeeper."},
		{"exhibitor", "hosts port poll_interval", "ZooKeeper through Exhibitor."},
		{"kubernetes", "labels namespace context scope_label role_label leader_label_value follower_label_value standby_leader_label_value tmp_role_label bootstrap_labels use_endpoints pod_ip ports cacert bypass_api_service retriable_http_codes", "The Kubernetes API."},
	} {
		rows = append(rows, key{path: s.name, typ: tSection, restart: true, doc: s.doc})
		for _, k := range strings.Fields(s.keys) {
			rows = append(rows, key{
				path: s.name + "." + k, typ: storeKeyType(k), env: strings.ToUpper(s.name + "_" + k),
				restart: k != "token" && k != "username" && k != "password", doc: storeKeyDocs()[s.name+"."+k],
			})
		}
	}
	return rows
}

func storeKeyType(name string) typ {
	switch name {
	case "password", "token", "key_password":
		return tSecret
	case "use_proxies", "verify", "use_ssl", "register_service", "use_endpoints", "bypass_api_service":
		return tBool
	case "hosts", "checks", "service_tags", "retriable_http_codes":
		return tStrings
	case "labels", "bootstrap_labels", "set_acls", "auth_data", "ports", "exhibitor":
		return tFree
	case "port", "poll_interval":
		return tInt
	default:
		return tString
	}
}

// storeKeyDocs are the meanings of the keys of stores that are built in.
func storeKeyDocs() map[string]string {
	return map[string]string{
		"etcd3.host":                           "A server, host:port (2379). Of proxy, url, srv, hosts and host the first that is given counts.",
		"etcd3.hosts":                          "Servers. One that answers is enough: etcd names the others.",
		"etcd3.url":                            "A server as a URL, with protocol, and user and password if any.",
		"etcd3.proxy":                          "A proxy's URL; etcd's own addresses are not used.",
		"etcd3.srv":                            "A domain whose SRV records name the servers.",
		"etcd3.srv_suffix":                     "Added to the records' service names: `_etcd-client-SUFFIX`.",
		"etcd3.discovery_srv":                  "Older word for srv.",
		"etcd3.srv_domain":                     "Older word for srv.",
		"etcd3.use_proxies":                    "The hosts are proxies: use them alone, whatever addresses etcd names.",
		"etcd3.protocol":                       "http, or https where etcd speaks TLS.",
		"etcd3.username":                       "User, if etcd asks for one.",
		"etcd3.password":                       "That user's password.",
		"etcd3.cacert":                         "The authority of the servers' certificates; else the system's.",
		"etcd3.cert":                           "Our certificate, if etcd asks for one. Read again for each connection.",
		"etcd3.key":                            "Its key, if it isn't in the same file.",
		"etcd3.key_password":                   "The password of an encrypted key.",
		"consul.host":                          "An agent, host or host:port (8500); 127.0.0.1 by default.",
		"consul.url":                           "The agent as a URL; replaces host, port and scheme.",
		"consul.port":                          "Port, if host has none.",
		"consul.scheme":                        "http, or https where Consul speaks TLS.",
		"consul.token":                         "Token with write on the cluster's keys and on sessions (and on the service, and agent, if it is registered).",
		"consul.verify":                        "Verify the server's certificate.",
		"consul.cacert":                        "The authority of the server's certificate; else the system's.",
		"consul.cert":                          "Our certificate, if Consul asks for one. Read again for each connection.",
		"consul.key":                           "Its key, if it isn't in the same file.",
		"consul.dc":                            "Datacenter, if not the agent's own.",
		"consul.consistency":                   "default and consistent mean the same: a majority vouches for what is read. stale: watches and local views may be of any age; what is decided on is read consistently all the same.",
		"consul.checks":                        "Checks of the agent's node that end the member's session when they fail. None by default.",
		"consul.register_service":              "Announce the member as a service named after the scope, tagged with its role.",
		"consul.service_tags":                  "Further tags of the service.",
		"consul.service_check_interval":        "How often Consul asks the member's REST API for its role; 5s.",
		"consul.service_check_tls_server_name": "The name that the REST API's certificate must have.",
	}
}
